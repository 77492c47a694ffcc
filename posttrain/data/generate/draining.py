"""What is raised where a request is not sent."""

from __future__ import annotations


class Draining(Exception):
    """A request was not sent, because the work is being stopped; its row is left for the next run."""
