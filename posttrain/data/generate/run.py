"""Rows through a rollout: one row out for each row in, in order, many at once, resumable after any interruption."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from posttrain.data.generate.draining import Draining
from posttrain.data.generate.parts import (
    PART_ROWS,
    PartWriter,
    Refusals,
    RunSummary,
    finish,
    finished,
    part_files,
    read_part,
    record_of,
)
from posttrain.data.generate.progress import Progress, Status
from posttrain.data.generate.requests import Asker, Failed
from posttrain.data.generate.rows import InputRow, Outcome, Rollout
from posttrain.data.generate.stop import Stop
from posttrain.data.rows import reason_kind
from posttrain.errors import UserError

_LOOK = 0.5  # seconds between updates of the progress


class RolloutError(RuntimeError):
    """A rollout met something it did not expect; what was finished before is kept."""


async def run_rows(
    rows: Iterator[InputRow],
    rollout: Rollout,
    asker: Asker,
    folder: Path,
    *,
    total: int | None = None,
    concurrency: int,
    part_rows: int = PART_ROWS,
    window: int | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
    refused: Refusals | None = None,
) -> RunSummary:
    """Write one row for each input row, in their order, to parts in a folder; a row that fails stays as a tombstone.

    Equal rows and answers give equal bytes, whatever the concurrency, the order in which answers come, and how often
    the run was cut off. Parts that are whole are kept and their rows passed over; those of the part that was under way
    are worked on again, with the answers that the asker has kept. A finished folder is left as it is.

    Args:
        rows: The input, numbered from 0; read from the beginning by every run that is not finished.
        rollout: What is done with each.
        asker: What the rollout asks. Its method `stop`, where it has one, is called when the run is to stop: from then
            on it sends nothing, answers from what it has kept, and raises `Draining` for the rest.
        folder: Where the parts are; made if it is not there.
        total: How many rows there are, where that is known; only shown.
        concurrency: How many rows are worked on at once.
        part_rows: Rows of a part.
        window: How many rows at most are ahead of the first that is not finished, by default 16 a worker and at least
            4096: while one answer is long in coming, memory holds no more than these.
        progress: Told of the progress twice a second.
        stop: Once requested, no new row is begun, those under way are waited for, and parts that got whole are kept.
        refused: What the input could not use; put in place and counted when the run is finished.

    Raises:
        Interrupted: `stop` was requested.
        RolloutError: The rollout raised something else than `Failed`; rows under way were waited for first.
        UserError: The rollout or the input raised it; or the parts in the folder are of other rows.
    """
    if (summary := finished(folder)) is not None:
        return summary
    if concurrency < 1 or part_rows < 1:
        raise ValueError(f"concurrency is {concurrency} and part_rows {part_rows}; both are 1 or more")
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(
        rows, rollout, asker, stop or Stop(), concurrency, max(concurrency, window or max(4096, 16 * concurrency))
    )
    run.open(folder, part_rows)
    await run.work(progress, total)
    if run.complete:
        run.writer.close()
        if refused is not None:
            refused.finish()
        summary = run.summary(refused)
        finish(folder, summary)
    if run.stop.requested:
        raise run.stop.interruption(folder.name, f"after {run.written} rows")
    assert summary is not None, "without a stop or an error, all rows have been written"
    return summary


@dataclass
class _Slot:
    """A worker's place: the row it is at."""

    row: InputRow | None = None


class _Run:
    """The state of one run. Rows taken and not yet written are at most the window: each holds one permit of `_room`."""

    writer: PartWriter

    def __init__(
        self, rows: Iterator[InputRow], rollout: Rollout, asker: Asker, stop: Stop, concurrency: int, window: int
    ) -> None:
        self.stop = stop
        self.written = 0
        self._rows = iter(rows)
        self._rollout = rollout
        self._asker = asker
        self._concurrency = concurrency
        self._room = asyncio.Semaphore(window)
        self._exhausted = False
        self._taken = 0
        self._kept = 0
        self._active = 0
        self._out_of_order: dict[int, dict[str, Any]] = {}
        self._reasons: Counter[str] = Counter()

    @property
    def complete(self) -> bool:
        """Whether every row has been written, or handed to the writer."""
        return self._exhausted and self.written == self._taken

    def summary(self, refused: Refusals | None) -> RunSummary:
        return RunSummary(
            rows=self.written,
            failed=sum(self._reasons.values()),
            parts=self.writer.parts,
            reasons=dict(sorted(self._reasons.items())),
            refused={} if refused is None else dict(sorted(refused.reasons.items())),
        )

    def open(self, folder: Path, part_rows: int) -> None:
        """Pass over the rows of the parts that are there, after a look whether they are these rows."""
        paths = part_files(folder)
        for path in paths:
            kept = read_part(path, ["id", "failed"])
            if [row["id"] for row in kept] != [row.id for row in islice(self._rows, len(kept))]:
                raise UserError(f"{path}: was made from other rows; delete {folder}, or choose another")
            self._taken += len(kept)
            self._reasons.update(reason_kind(row["failed"]) for row in kept if row["failed"] is not None)
            if len(kept) != part_rows:
                self._at_the_end(path, last=path == paths[-1], part_rows=part_rows)
        self.written = self._kept = self._taken
        self.writer = PartWriter(folder, part_rows, len(paths))

    def _at_the_end(self, path: Path, *, last: bool, part_rows: int) -> None:
        """Check that a part of another length than the others is the last of all."""
        if not last or next(self._rows, None) is not None:
            raise UserError(f"{path}: has not {part_rows} rows, and more follow; delete it and the parts after it")
        self._exhausted = True

    async def work(self, progress: Progress | None, total: int | None) -> None:
        """Work on all rows, or until the stop; raise what a rollout or the input raised."""
        slots = [_Slot() for _ in range(self._concurrency)]
        workers = [asyncio.create_task(self._worker(slot)) for slot in slots]
        ticker = asyncio.create_task(self._tick(progress, total)) if progress is not None else None
        with self.stop.calling(self._halt):
            try:
                _, running = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
                if running:
                    self.stop.request()
                    await asyncio.wait(running)
            finally:
                tasks = [*workers, *([ticker] if ticker is not None else [])]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if progress is not None:
            progress.update(self._status(total), last=True)
        errors = [(slot.row, error) for slot, task in zip(slots, workers, strict=True) if (error := task.exception())]
        if errors:
            self._raise(errors)

    def _raise(self, errors: list[tuple[InputRow | None, BaseException]]) -> None:
        """Raise what went wrong: what users can correct together, or the first of what they cannot."""
        errors.sort(key=lambda item: -1 if item[0] is None else item[0].number)
        others = [item for item in errors if not isinstance(item[1], UserError)]
        if not others:
            problems = [problem for _, error in errors if isinstance(error, UserError) for problem in error.problems]
            raise UserError(list(dict.fromkeys(problems)))
        row, error = others[0]
        if row is None:
            raise error
        more = f", and {len(others) - 1} rows under way met errors too" if len(others) > 1 else ""
        raise RolloutError(
            f"row {row.number} ({row.id}): {type(error).__name__}: {error}{more}; {self.written} rows are finished"
        ) from error

    def _halt(self) -> None:
        """Have nothing more sent, and let workers that wait for room see that there will be none."""
        halt = getattr(self._asker, "stop", None)
        if halt is not None:
            halt()
        for _ in range(self._concurrency):
            self._room.release()

    async def _worker(self, slot: _Slot) -> None:
        while True:
            await self._room.acquire()
            if self._exhausted or self.stop.requested:
                break
            row = next(self._rows, None)
            if row is None:
                self._exhausted = True
                break
            slot.row = row
            if row.number != self._taken:
                raise ValueError(f"row {row.number} comes at place {self._taken}")
            self._taken += 1
            self._active += 1
            try:
                outcome = await self._outcome(row)
            except Draining:
                self.stop.request()
                break
            finally:
                self._active -= 1
            self._finished(row, outcome)
            slot.row = None
            await asyncio.sleep(0)  # answers that are all kept already would never let a signal or the progress in
        self._room.release()

    async def _outcome(self, row: InputRow) -> Outcome:
        if row.failed is not None:
            return Outcome(failed=row.failed)
        try:
            return await self._rollout(row, self._asker)
        except Failed as failed:
            return Outcome(failed=failed.reason)

    def _finished(self, row: InputRow, outcome: Outcome) -> None:
        record = record_of(row, outcome)
        if record["failed"] is not None:
            self._reasons[reason_kind(record["failed"])] += 1
        self._out_of_order[row.number] = record
        while (following := self._out_of_order.pop(self.written, None)) is not None:
            self.writer.add(following)
            self.written += 1
            self._room.release()

    def _status(self, total: int | None) -> Status:
        done = self.written + len(self._out_of_order)
        return Status(done=done, kept=self._kept, total=total, active=self._active, failed=dict(self._reasons))

    async def _tick(self, progress: Progress, total: int | None) -> None:
        while True:
            progress.update(self._status(total))
            await asyncio.sleep(_LOOK)
