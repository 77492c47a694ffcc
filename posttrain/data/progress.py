"""A line that counts rows while data is read, where someone is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERY = 500  # rows between updates: drawing costs more than reading a row


@contextmanager
def counting(shown: bool | None = None) -> Iterator[Callable[[str], None]]:
    """Give a function to call once a row with what is being done.

    Args:
        shown: Whether to draw; by default if standard error is a terminal.
    """
    if not (sys.stderr.isatty() if shown is None else shown):
        yield lambda doing: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,} rows"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        tasks = {}
        waiting: dict[str, int] = {}

        def count(doing: str) -> None:
            if doing not in tasks:
                tasks[doing] = progress.add_task(doing, total=None)
            waiting[doing] = waiting.get(doing, 0) + 1
            if waiting[doing] == _EVERY:
                progress.advance(tasks[doing], waiting.pop(doing))

        yield count
        for doing, rows in waiting.items():
            progress.advance(tasks[doing], rows)
