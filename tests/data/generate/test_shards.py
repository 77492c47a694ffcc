"""Rows dealt to shards and put together again: the bytes of one run over all of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from posttrain.data.generate.inputs import input_rows, input_total
from posttrain.data.generate.parts import Refusals
from posttrain.data.generate.requests import Asker
from posttrain.data.generate.rows import InputRow, Outcome
from posttrain.data.generate.run import run_rows
from posttrain.data.generate.shards import Shard, merge
from posttrain.recipe import schema_generate as schema

PART = 4
ENTRIES = ("first", "second", "third")


async def numbered(row: InputRow, asker: Asker) -> Outcome:
    """Answer with the row's number, and fail some rows by it: what a shard counts itself would show."""
    if row.number % 7 == 3:
        return Outcome(failed=f"no luck: {row.number}")
    messages = [*row.messages[:1], {"role": "assistant", "content": f"{row.number} {len(row.messages)}"}]
    return Outcome(messages=messages, meta={"number": row.number})


def entries_of(folder: Path, rows: int, max_rows: int | None) -> list[schema.Rollout]:
    path = folder / "rows.jsonl"
    lines = [json.dumps({"prompt": f"Question {n // 2}", "completion": f"Answer {n}"}) for n in range(rows)]
    lines[3:3] = ["{broken", "[]"]
    path.write_text("\n".join(lines))
    source = {"source": "generic", "path": str(path)}
    return [
        schema.Respond(rollout="respond", name="first", source=source),
        schema.Respond(rollout="respond", name="second", rows_from="first", max_rows=max_rows),
        schema.Rate(rollout="rate", name="third", rows_from="second"),
    ]


def run(entries: list[schema.Rollout], out: Path, shard: Shard | None) -> None:
    earlier: dict[str, Path] = {}
    for entry in entries:
        folder = out / entry.name
        folder.mkdir(parents=True)
        with Refusals(folder) as refused:
            noted = refused if shard is None or shard.rank == 0 else None
            given = input_rows(entry, earlier, refused=noted) if shard is None else shard.rows(entry, earlier, noted)
            rollout = numbered if shard is None else shard.rollout(numbered)
            total = input_total(entry, earlier) if shard is None else shard.total(entry, earlier)
            asker: Any = None
            summary = asyncio.run(
                run_rows(given, rollout, asker, folder, concurrency=3, part_rows=PART, total=total, refused=noted)
            )
        assert total is None or total >= summary.rows
        earlier[entry.name] = folder


def contents(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return dict(sorted(found.items()))


@pytest.mark.parametrize(("rows", "max_rows"), [(37, None), (37, 21), (37, 24), (2, None), (32, 32), (32, 5)])
@pytest.mark.parametrize("shards", [1, 2, 3, 11])
def test_shards_together_are_one_run(tmp_path: Path, rows: int, max_rows: int | None, shards: int) -> None:
    entries = entries_of(tmp_path, rows, max_rows)
    run(entries, tmp_path / "whole", None)
    folders = [tmp_path / "shards" / str(rank) for rank in range(shards)]
    for rank, folder in enumerate(folders):
        run(entries, folder, Shard(rank, shards, PART))
    summaries = merge(ENTRIES, folders, tmp_path / "merged", PART)
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    assert summaries["first"].rows == rows
    before = contents(tmp_path / "merged")
    assert merge(ENTRIES, folders, tmp_path / "merged", PART) == summaries
    assert contents(tmp_path / "merged") == before


@pytest.mark.parametrize("shards", [1, 3, 4])
def test_every_row_is_in_one_shard_under_its_own_number(shards: int) -> None:
    entry = schema.MagpieRollout(rollout="magpie", name="made", rows=30)
    found: list[tuple[int, str]] = []
    for rank in range(shards):
        shard = Shard(rank, shards, PART)
        rows = list(shard.rows(entry, {}))
        assert [row.number for row in rows] == list(range(len(rows)))
        assert len(rows) == shard.total(entry, {})
        found += [(shard.number_of(row.number), row.id) for row in rows]
    assert sorted(found) == [(number, f"made:{number}") for number in range(30)]


def test_no_row_is_merged_while_a_shard_is_unfinished(tmp_path: Path) -> None:
    entries = entries_of(tmp_path, 37, None)
    run(entries[:1], tmp_path / "0", Shard(0, 2, PART))
    with pytest.raises(AssertionError, match="not finished"):
        merge(["first"], [tmp_path / "0", tmp_path / "1"], tmp_path / "merged", PART)
    assert not (tmp_path / "merged").exists()
