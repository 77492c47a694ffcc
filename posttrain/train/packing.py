"""Rows of tokens laid together in blocks of a fixed length.

The columns of a table are lists of int32 that are equally long in each row, such as `input_ids` and `labels`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SEQ_LENGTHS = "seq_lengths"  # the column from which TRL's collator makes position ids that start anew with each row


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put rows into blocks: the longest first, each where it leaves the least room, or into a new block.

    The method is best-fit decreasing, as in "Fewer Truncations Improve Language Modeling" (arXiv 2404.10830). Of
    several blocks with the same room the one that has had it longest is taken, and rows of equal length keep their
    order, so the blocks are the same as those of TRL's `bfd` packing.

    Args:
        lengths: Tokens of each row, from 1 to `capacity`.
        capacity: Tokens that a block holds.

    Returns:
        The row numbers of each block, in the order in which the blocks were opened.
    """
    blocks: list[list[int]] = []
    rooms: list[int] = []  # how much room there is in some block, sorted, each number once
    with_room: dict[int, deque[list[int]]] = {}
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        length = lengths[row]
        at = bisect_left(rooms, length)
        if at == len(rooms):
            block: list[int] = []
            blocks.append(block)
            room = capacity
        else:
            room = rooms[at]
            block = with_room[room].popleft()
            if not with_room[room]:
                del rooms[at]
        block.append(row)
        room -= length
        if room:
            waiting = with_room.setdefault(room, deque())
            if not waiting:
                insort(rooms, room)
            waiting.append(block)
    return blocks


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a list column, int32, and the row's offsets in them, int64 and one more than the rows."""
    import numpy as np

    array = column.combine_chunks()
    offsets = array.offsets.to_numpy().astype(np.int64)
    return array.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0]


def ragged(values: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """Return a list array of int32 from its values laid end to end and the length of each list."""
    import numpy as np
    import pyarrow as pa

    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)  # 2**31 tokens at a time are more than fit into memory
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, type=pa.int32()))


def _bfd(table: pa.Table, capacity: int) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    lengths = np.diff(_flat(table.column(0))[1])
    blocks = best_fit_decreasing(lengths.tolist(), capacity)
    order = np.fromiter((row for block in blocks for row in block), dtype=np.int64, count=len(lengths))
    of_row = lengths[order]
    rows_of_block = np.array([len(block) for block in blocks], dtype=np.int64)
    ends = np.concatenate([[0], np.cumsum(of_row)])
    tokens_of_block = np.diff(ends[np.concatenate([[0], np.cumsum(rows_of_block)])])
    taken = table.take(pa.array(order))  # copies row by row, which is faster than token by token
    columns = {name: ragged(_flat(taken.column(name))[0], tokens_of_block) for name in table.column_names}
    columns[SEQ_LENGTHS] = ragged(of_row, rows_of_block)
    return pa.table(columns)


def _wrapped(table: pa.Table, capacity: int) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    columns = {}
    for name in table.column_names:
        values, _ = _flat(table.column(name))
        full, rest = divmod(len(values), capacity)
        columns[name] = ragged(values, np.array([capacity] * full + [rest] * bool(rest), dtype=np.int64))
    return pa.table(columns)


def pack(table: pa.Table, capacity: int, strategy: str) -> pa.Table:
    """Pack the rows of a table into blocks of at most `capacity` tokens.

    Args:
        table: Rows of at most `capacity` tokens.
        capacity: Tokens that a block holds.
        strategy: `bfd` keeps each row whole and adds `seq_lengths`, the lengths of a block's rows in order; `wrapped`
            lays all rows end to end and cuts, the last block being what is left.
    """
    if strategy not in ("bfd", "wrapped"):
        raise ValueError(f"there is no packing {strategy!r}")
    return _bfd(table, capacity) if strategy == "bfd" else _wrapped(table, capacity)
