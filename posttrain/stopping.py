"""Ctrl-C and SIGTERM while nothing has to be saved first: the work ends at once, and says so."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from posttrain.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_entered: list[None] = []  # one for each `ending_at_once` around what runs now
_ended: list[Interrupted] = []  # what one of them has raised, until the outermost is left


@contextmanager
def ending_at_once(describe: Callable[[], str]) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM end the work inside with `Interrupted`.

    The work is left by the exceptions that libraries know, `KeyboardInterrupt` and `SystemExit`, so that what is open
    is closed; what they have become on their way out does not matter. Whoever inside can save something first handles
    the signals itself meanwhile. A signal that this process was started to ignore stays ignored, as Ctrl-C under nohup.
    Only the main thread can handle signals: elsewhere nothing changes.

    Where one is inside another, the inner says what was stopped. A SIGTERM that comes after that, while files and locks
    are let go, is of no account: launchers and schedulers often send two.

    Args:
        describe: Says what was stopped, and where, when that is known.

    Raises:
        Interrupted: There was a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner and number == signal.SIGTERM:  # a forked worker, which is to die of it as others do
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if _ended and number == signal.SIGTERM:
            return
        received.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    former: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    handled = [number for number in _SIGNALS if former[number] not in (signal.SIG_IGN, None)]
    _entered.append(None)
    try:
        for number in handled:
            signal.signal(number, end)
        yield
    except Interrupted as error:
        _ended.append(error)
        raise
    except BaseException as error:
        if not received:
            raise
        _ended.append(Interrupted(describe(), received[0]))
        raise _ended[0] from error
    finally:
        for number in handled:
            signal.signal(number, former[number])
        _entered.pop()
        if not _entered:
            _ended.clear()
