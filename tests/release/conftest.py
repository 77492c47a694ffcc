"""The fixtures of a released chain."""

from __future__ import annotations

from tests.release.made import built, checkpoint, no_processes, release

__all__ = ["built", "checkpoint", "no_processes", "release"]
