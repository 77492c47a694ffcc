"""Packing: the same blocks as TRL's, no token lost, and no block over its length."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset
from trl.data_utils import pack_dataset

from posttrain.train.packing import best_fit_decreasing, pack


def rows(lengths: list[int]) -> pa.Table:
    """Return rows of the given lengths, in which no token occurs twice."""
    ids: list[list[int]] = []
    start = 0
    for length in lengths:
        ids.append(list(range(start, start + length)))
        start += length
    labels = [[-token for token in row] for row in ids]
    return pa.table(
        {"input_ids": pa.array(ids, pa.list_(pa.int32())), "labels": pa.array(labels, pa.list_(pa.int32()))}
    )


def uneven(seed: int, count: int, longest: int) -> list[int]:
    """Return lengths with many equal ones, and some as long as can be."""
    source = random.Random(seed)
    return [source.choice((1, longest, source.randint(1, longest), source.randint(1, 12))) for _ in range(count)]


CASES: list[tuple[list[int], int]] = [(uneven(seed, 400, 64), 64) for seed in range(20)] + [([5], 5), ([3, 3, 3], 4)]


@pytest.mark.parametrize(("lengths", "capacity"), CASES)
@pytest.mark.parametrize("strategy", ["bfd", "wrapped"])
def test_blocks_are_those_of_trl(lengths: list[int], capacity: int, strategy: str) -> None:
    table = rows(lengths)
    # TRL packs each thousand rows by themselves.
    theirs: Any = pack_dataset(Dataset(table), capacity, strategy, {"batch_size": len(lengths)}).with_format("arrow")[:]
    ours = pack(table, capacity, strategy)
    assert ours.column_names == theirs.column_names
    assert ours.to_pydict() == theirs.to_pydict()


@pytest.mark.parametrize("strategy", ["bfd", "wrapped"])
def test_a_slice_is_packed_like_a_copy_of_it(strategy: str) -> None:
    table = rows(uneven(3, 60, 20))
    part = table.slice(17, 30)
    copied = pa.table({name: pa.array(part[name].to_pylist(), pa.list_(pa.int32())) for name in part.column_names})
    assert pack(part, 20, strategy).to_pydict() == pack(copied, 20, strategy).to_pydict()
    both = pa.concat_tables([table.slice(0, 17), part])
    assert pack(both, 20, strategy).to_pydict() == pack(table.slice(0, 47), 20, strategy).to_pydict()


def test_every_row_is_in_one_block_and_every_block_fits() -> None:
    lengths = uneven(1, 3000, 512)
    blocks = best_fit_decreasing(lengths, 512)
    assert sorted(row for block in blocks for row in block) == list(range(len(lengths)))
    assert max(sum(lengths[row] for row in block) for block in blocks) <= 512
    assert len(blocks) <= 1.01 * sum(lengths) / 512 + 1


@pytest.mark.parametrize("strategy", ["bfd", "wrapped"])
def test_no_rows_make_no_blocks(strategy: str) -> None:
    assert len(pack(rows([]), 8, strategy)) == 0


def test_an_unknown_strategy_is_an_error() -> None:
    with pytest.raises(ValueError, match="no packing 'none'"):
        pack(rows([1]), 8, "none")
