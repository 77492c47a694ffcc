"""Generation shared out: the parts of every entry dealt to shards in turn, and put together again.

Of n shards, shard r has the parts r, r + n, r + 2n and so on. So nobody needs to know how many rows there are, no
shard has more than one part more than another, and the rows of an entry that builds on another are in the same shard
as those that it builds on.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from posttrain.data.generate.inputs import input_rows, input_total
from posttrain.data.generate.parts import (
    PART_ROWS,
    REFUSED,
    PartWriter,
    Refusals,
    RunSummary,
    finish,
    finished,
    part_path,
    read_part,
)
from posttrain.data.generate.requests import Asker
from posttrain.data.generate.rows import InputRow, Outcome, Rollout
from posttrain.recipe import schema_generate as schema


class Shard:
    """Shard `rank` of `shards`. Its rows are numbered from 0, `number_of` says what they are in the whole entry."""

    def __init__(self, rank: int, shards: int, part_rows: int = PART_ROWS) -> None:
        self.rank = rank
        self.shards = shards
        self.part_rows = part_rows

    def number_of(self, own: int) -> int:
        """Return the number in the whole entry of a row of this shard."""
        part, place = divmod(own, self.part_rows)
        return (self.rank + part * self.shards) * self.part_rows + place

    def rows(
        self, entry: schema.Rollout, earlier: Mapping[str, Path], refused: Refusals | None = None
    ) -> Iterator[InputRow]:
        """Yield the rows of an entry that are in this shard; all of its input is read.

        Args:
            entry: The options.
            earlier: The finished folders of this shard for the entries before it, by name.
            refused: Where to note what no row can be made of; one shard is enough.
        """
        if entry.rows_from is not None:
            for row in input_rows(entry, earlier):
                if entry.max_rows is not None and self.number_of(row.number) >= entry.max_rows:
                    return
                yield row
            return
        own = 0
        for row in input_rows(entry, earlier, refused=refused):
            if row.number // self.part_rows % self.shards == self.rank:
                yield replace(row, number=own)
                own += 1

    def total(self, entry: schema.Rollout, earlier: Mapping[str, Path]) -> int | None:
        """Return how many rows there are at most, where that is cheap to know."""
        total = input_total(entry, earlier)
        if total is None or entry.rows_from is not None:
            return total
        whole, rest = divmod(total, self.part_rows)
        parts = len(range(self.rank, whole, self.shards))
        return parts * self.part_rows + (rest if whole % self.shards == self.rank else 0)

    def rollout(self, rollout: Rollout) -> Rollout:
        """Return a rollout that sees the numbers of the whole entry."""

        async def numbered(row: InputRow, asker: Asker) -> Outcome:
            return await rollout(replace(row, number=self.number_of(row.number)), asker)

        return numbered


def merge(names: Sequence[str], shards: Sequence[Path], out: Path, part_rows: int = PART_ROWS) -> dict[str, RunSummary]:
    """Put the finished shards of entries together in `out/<name>/`: the bytes that one run over all rows writes.

    Args:
        names: The entries.
        shards: The folder of each shard, in order, with a folder for each entry.
        out: Where the rows go. What is finished there is left as it is.
        part_rows: Rows of a part, as in the shards.
    """
    return {name: _merge([shard / name for shard in shards], out / name, part_rows) for name in names}


def _merge(shards: Sequence[Path], folder: Path, part_rows: int) -> RunSummary:
    if (summary := finished(folder)) is not None:
        return summary
    summaries = [finished(shard) for shard in shards]
    known = [summary for summary in summaries if summary is not None]
    assert len(known) == len(shards), f"{folder.name}: a shard is not finished"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writer = PartWriter(folder, part_rows)
    number = 0
    for part in range(sum(summary.parts for summary in known)):
        for record in read_part(part_path(shards[part % len(shards)], part // len(shards))):
            writer.add({**record, "number": number})
            number += 1
    writer.close()
    reasons: Counter[str] = Counter()
    for summary in known:
        reasons.update(summary.reasons)
    if (shards[0] / REFUSED).exists():
        shutil.copyfile(shards[0] / REFUSED, folder / REFUSED)
    merged = RunSummary(
        rows=number,
        failed=sum(summary.failed for summary in known),
        parts=writer.parts,
        reasons=dict(sorted(reasons.items())),
        refused=known[0].refused,
    )
    if merged.rows != sum(summary.rows for summary in known):
        raise RuntimeError(f"{folder}: {merged.rows} rows of shards that have others; please report this")
    finish(folder, merged)
    return merged
