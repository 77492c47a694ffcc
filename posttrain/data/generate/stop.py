"""Stopping in an orderly way: nothing new is begun, what is under way is waited for."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from posttrain.errors import Interrupted


class Stop:
    """Whether to begin nothing new.

    Attributes:
        signal: The number of the signal that asked for it; None where none did, or nothing asked yet.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._requested = False
        self._callbacks: list[tuple[asyncio.AbstractEventLoop, Callable[[], object]]] = []

    @property
    def requested(self) -> bool:
        """Whether the work is to stop."""
        return self._requested

    def request(self, number: int | None = None) -> None:
        """Ask for it; `number` is that of a signal. May be called from a signal's handler; once is enough."""
        if self._requested:
            return
        self._requested = True
        self.signal = number
        for loop, callback in list(self._callbacks):
            loop.call_soon_threadsafe(callback)

    def interruption(self, where: str, when: str) -> Interrupted:
        """Return what work that was stopped ends with; where no signal asked for it, as if SIGTERM had.

        Args:
            where: What was stopped.
            when: How far it was, as in `after 3 rows`.
        """
        number = self.signal or signal.SIGTERM
        return Interrupted(f"{where}: stopped by {signal.Signals(number).name} {when}", number)

    @contextmanager
    def calling(self, callback: Callable[[], object]) -> Iterator[None]:
        """Have the running event loop call something once a stop is requested; soon, where that has happened."""
        loop = asyncio.get_running_loop()
        entry = (loop, callback)
        self._callbacks.append(entry)
        if self._requested:
            loop.call_soon(callback)
        try:
            yield
        finally:
            self._callbacks.remove(entry)


@contextmanager
def stopping_on_signals() -> Iterator[Stop]:
    """Give a `Stop` that the first SIGTERM or Ctrl-C requests.

    A second one ends the process at once, with `KeyboardInterrupt` or `SystemExit`; a third does what it would have
    done without this. Only the main thread can handle signals: elsewhere nothing but the caller requests the stop.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous: dict[int, Any] = {}

    def restore() -> None:
        while previous:
            signal.signal(*previous.popitem())

    def receive(number: int, frame: FrameType | None) -> None:
        if not stop.requested:
            stop.request(number)
            return
        restore()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, receive)
    try:
        yield stop
    finally:
        restore()
