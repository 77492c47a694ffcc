"""How far a run is: a bar where someone is looking, a line each half minute in a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

_EVERY = 30.0  # seconds between lines of a log
_SPAN = 30.0  # seconds over which tokens a second are averaged

Snapshot = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where a run is: rows done, of them kept from before, of so many where that is known; rows at work; failures."""

    done: int
    kept: int = 0
    total: int | None = None
    active: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)


class Progress(Protocol):
    """Told now and then where a run is."""

    def update(self, status: Status, *, last: bool = False) -> None:
        """Show it."""


class Meter:
    """Makes the text beside a bar from what the run and the asker count.

    Args:
        snapshot: Returns what the asker has counted (`Stats.snapshot`): `prompt_tokens`, `completion_tokens`,
            `in_flight`, `retries`; those that are missing are not shown.
        clock: Seconds that never go back.
        unit: What is counted.
    """

    def __init__(
        self,
        snapshot: Snapshot | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        unit: str = "rows",
    ) -> None:
        self._unit = unit
        self._snapshot = snapshot or dict
        self._clock = clock
        self._began = clock()
        self._tokens: deque[tuple[float, int, int]] = deque()

    def text(self, status: Status) -> str:
        """Return tokens a second in and out, requests at once, what failed, and the time left."""
        counted = self._snapshot()
        parts = []
        if "completion_tokens" in counted:
            read, written = self._rates(counted.get("prompt_tokens", 0), counted["completion_tokens"])
            parts.append(f"{_short(read)} tok/s in, {_short(written)} out")
        if "in_flight" in counted:
            parts.append(f"{counted['in_flight']} at once")
        parts += [f"{name} {_listed(found)}" for name, found in self._problems(status, counted) if found]
        left = self.left(status)
        if left is not None:
            parts.append(f"{_duration(left)} left")
        return "; ".join(parts)

    def left(self, status: Status) -> float | None:
        """Return the seconds left, at the rate of this run so far; None where that is not known."""
        own = status.done - status.kept
        if status.total is None or own <= 0 or status.done >= status.total:
            return None
        return (status.total - status.done) * (self._clock() - self._began) / own

    def _problems(self, status: Status, counted: Mapping[str, Any]) -> list[tuple[str, Mapping[str, int]]]:
        return [("retried", counted.get("retries", {})), (f"failed {self._unit}", status.failed)]

    def _rates(self, read: int, written: int) -> tuple[float, float]:
        now = self._clock()
        self._tokens.append((now, read, written))
        while len(self._tokens) > 2 and now - self._tokens[1][0] >= _SPAN:
            self._tokens.popleft()
        then, read_then, written_then = self._tokens[0]
        seconds = now - then
        if seconds <= 0:
            return 0.0, 0.0
        return (read - read_then) / seconds, (written - written_then) / seconds


@contextmanager
def following(
    name: str,
    snapshot: Snapshot | None = None,
    shown: bool | None = None,
    *,
    stage: str = "generate",
    unit: str = "rows",
) -> Iterator[Progress]:
    """Give something to tell where the run of an entry is.

    Args:
        name: The entry's.
        snapshot: As `Meter` takes it.
        shown: Whether to draw a bar; by default if standard error is a terminal.
        stage: What lines of a log begin with.
        unit: What is counted.
    """
    meter = Meter(snapshot, unit=unit)
    if not (sys.stderr.isatty() if shown is None else shown):
        yield _Log(f"{stage}  {name}", unit, meter)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[about]}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield _Bar(bars, bars.add_task(name, total=None, about=""), meter)


class _Bar:
    def __init__(self, bars: Any, task: Any, meter: Meter) -> None:
        self._bars = bars
        self._task = task
        self._meter = meter

    def update(self, status: Status, *, last: bool = False) -> None:
        # What is refused was counted in the total, which is known exactly only at the end.
        total = status.done if last and status.active == 0 and status.total is not None else status.total
        self._bars.update(self._task, completed=status.done, total=total, about=self._meter.text(status))


class _Log:
    def __init__(self, name: str, unit: str, meter: Meter) -> None:
        self._name = name
        self._unit = unit
        self._meter = meter
        self._last = time.monotonic()

    def update(self, status: Status, *, last: bool = False) -> None:
        now = time.monotonic()
        if now - self._last < _EVERY:
            return
        self._last = now
        of = "" if status.total is None else f" of {status.total:,}"
        about = self._meter.text(status)
        line = f"{self._name}: {status.done:,}{of} {self._unit}" + (f"; {about}" if about else "")
        print(line, file=sys.stderr, flush=True)


def _listed(counts: Mapping[str, int]) -> str:
    """Return the most frequent kinds with their numbers."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f", {sum(counts.values()) - sum(number for _, number in ordered[:3]):,} others" if len(ordered) > 3 else ""
    return ", ".join(f"{kind} ({number:,})" for kind, number in ordered[:3]) + more


def _short(number: float) -> str:
    return f"{number:,.0f}" if number < 10_000 else f"{number / 1000:,.1f}k"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
