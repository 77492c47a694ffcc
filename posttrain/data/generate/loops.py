"""Reaching an event loop from another thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Have a loop of another thread call something; nothing is done where it is closed, for then nobody waits."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise
