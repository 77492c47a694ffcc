"""Blocks of tokens in flat files: where the tokenize stage puts them, and how a trainer reads them.

`source-00.bin`, `source-01.bin`, ... hold the tokens of the recipe's texts end to end, as little-endian integers of
`dtype`; `validation.bin` holds those of held-out documents. Block n of a file is the n-th `max_length` tokens of it.
`order.arrow` has the numbers of the blocks that are trained on, in their order, the blocks of all sources being
numbered one after the other. `text.json` says the rest. The files are mapped, so neither the time until the first step
nor the memory of a process grows with the text, and a run is resumed at any block.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterable, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

ABOUT = "text.json"
ORDER = "order.arrow"
VALIDATION = "validation.bin"
_SMALL = 1 << 16  # a vocabulary up to this size fits two bytes
_BATCH = 1 << 20  # blocks a record batch of the order


def token_dtype(vocabulary: int) -> str:
    """Return numpy's name of the least integer that the ids of a vocabulary fit into."""
    return "<u2" if vocabulary <= _SMALL else "<u4"


def source_file(index: int) -> str:
    """Return the name of the file with the tokens of a source."""
    return f"source-{index:02}.bin"


def write_order(path: Path, numbers: Iterable[int]) -> None:
    """Write the numbers of blocks in the order in which they are trained on."""
    import numpy as np
    import pyarrow as pa

    schema = pa.schema([("block", pa.int64())])
    numbers = iter(numbers)
    with pa.ipc.new_stream(str(path), schema) as stream:
        while len(batch := np.fromiter(islice(numbers, _BATCH), dtype=np.int64)):
            stream.write_table(pa.table({"block": batch}, schema=schema))


class Blocks:
    """Blocks by their numbers, read from mapped files. It may be sent to another process.

    Args:
        files: The files, whose blocks are numbered one after the other.
        counts: How many blocks of each are numbered.
        dtype: What the ids are stored as.
        length: Tokens a block.
    """

    def __init__(self, files: Sequence[Path], counts: Sequence[int], dtype: str, length: int) -> None:
        self._files, self._dtype, self._length = list(files), dtype, length
        self._starts = [0, *accumulate(counts)]
        self._mapped: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": {}}

    def __getitem__(self, number: int) -> np.ndarray:
        """Return a block: an int64 array of `length` ids."""
        import numpy as np

        if not 0 <= number < self._starts[-1]:
            raise IndexError(f"there is no block {number}, only {self._starts[-1]}")
        file = bisect.bisect_right(self._starts, number) - 1
        if file not in self._mapped:
            self._mapped[file] = np.memmap(self._files[file], dtype=self._dtype, mode="r")
        start = (number - self._starts[file]) * self._length
        return self._mapped[file][start : start + self._length].astype(np.int64)

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[np.ndarray]]:
        """Turn numbers of blocks into rows; the labels are the ids, which is what TRL takes them for."""
        return {"input_ids": [self[number] for number in batch["input_ids"]]}


def load_blocks(folder: Path) -> tuple[Dataset, Dataset, dict[str, Any]]:
    """Map what the tokenize stage wrote.

    Returns:
        The rows to train on in their order, the held-out ones, and the content of `text.json`.
    """
    from datasets import Dataset

    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    counts = [source["blocks"] for source in about["sources"]]
    files = [folder / source_file(index) for index in range(len(counts))]
    # The trainer keeps only the columns whose names it knows, so that of the numbers has the name of what they become.
    order = Dataset.from_file(str(folder / ORDER)).rename_column("block", "input_ids")
    held_out = Dataset.from_dict({"input_ids": list(range(about["validation_blocks"]))})
    dtype, length = about["dtype"], about["max_length"]
    return (
        order.with_transform(Blocks(files, counts, dtype, length)),
        held_out.with_transform(Blocks([folder / VALIDATION], [about["validation_blocks"]], dtype, length)),
        about,
    )
