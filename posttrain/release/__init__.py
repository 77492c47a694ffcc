"""What is published: quantised variants, release folders, their cards, signatures and the hub."""

from __future__ import annotations
