"""How far a build of data is: bars where someone is looking, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

_EVERY = 30.0  # seconds between lines of a log

# Called with what is being done, the share of it that is done, and how many rows it has come to, where that is known.
Advance: TypeAlias = Callable[..., None]


@contextmanager
def following(shown: bool | None = None) -> Iterator[Advance]:
    """Give a function to call with what is being done, the share of it that is done, and the rows so far.

    Args:
        shown: Whether to draw bars; by default if standard error is a terminal. Otherwise long work prints a line each
            half minute.
    """
    if not (sys.stderr.isatty() if shown is None else shown):
        yield _log()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {}

        def advance(doing: str, share: float, rows: int | None = None) -> None:
            counted = "" if rows is None else f"{rows:,} rows"
            if doing not in tasks:
                tasks[doing] = progress.add_task(doing, total=1.0, rows=counted)
            progress.update(tasks[doing], completed=min(share, 1.0), rows=counted)

        yield advance


def _log() -> Advance:
    last = time.monotonic()

    def advance(doing: str, share: float, rows: int | None = None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY:
            last = now
            counted = "" if rows is None else f", {rows:,} rows"
            print(f"data  {doing}: {share:.0%}{counted}", file=sys.stderr, flush=True)

    return advance
