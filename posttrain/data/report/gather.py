"""Reads a finished data folder for the report: a few numbers of every row, and some rows whole.

Row groups are read one at a time, so that memory holds one of them, about 30 bytes a row, and the examples.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

EXAMPLES = 10  # rows shown a source


@dataclass(frozen=True)
class Measures:
    """What is measured of the rows of one parquet file; arrays have one value a row, in the order of the file.

    `source` and `language` are int16 places in `sources` and `languages`. Lengths are int32 characters (code
    points): `user` of the user turns, `answer` of all assistant turns or the chosen answer, `rejected` of the
    rejected one (zeros in SFT rows). `turns` (int32) counts user turns. `margin` is float64, NaN where there is none.
    """

    sources: list[str]
    languages: list[str]
    source: np.ndarray
    language: np.ndarray
    user: np.ndarray
    answer: np.ndarray
    rejected: np.ndarray
    turns: np.ndarray
    margin: np.ndarray

    @property
    def trained(self) -> np.ndarray:
        """The characters of a row that the model is trained on, int64; of a pair, those of both answers."""
        characters: np.ndarray = self.answer.astype("int64") + self.rejected
        return characters


@dataclass
class Gathered:
    """A training file: its measures, `EXAMPLES` rows a source, and the personal data masked by source and kind."""

    rows: Measures
    examples: dict[str, list[dict[str, Any]]]
    pii: dict[str, Counter[str]]
    pii_rows: Counter[str]


def tables(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the row groups of a parquet file, without the columns that it does not have."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
        names = [name for name in file.schema_arrow.names if columns is None or name in columns]
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=names).combine_chunks()


def gather(path: Path) -> Gathered:
    """Read the training file of a set."""
    building, sample = _Building(), _Sample()
    pii, pii_rows = dict[str, Counter[str]](), Counter[str]()
    for table in tables(path):
        code = building.add(table)
        sample.look(table, code)
        _count_pii(table, pii, pii_rows)
    return Gathered(building.measures(), sample.rows(building.sources.names), pii, pii_rows)


def measure(path: Path) -> Measures:
    """Read only what is measured of a set's training file."""
    building = _Building()
    for table in tables(path, ["messages", "prompt", "chosen", "rejected", "margin", "source", "language"]):
        building.add(table)
    return building.measures()


@dataclass
class _Building:
    """Measures, a row group after the other."""

    sources: _Codes = field(default_factory=lambda: _Codes())
    languages: _Codes = field(default_factory=lambda: _Codes())
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)

    def add(self, table: pa.Table) -> np.ndarray:
        """Measure the rows of a table, and return the codes of their sources."""
        code = self.sources.encode(table["source"])
        self.parts.append({"source": code, "language": self.languages.encode(table["language"]), **_measure(table)})
        return code

    def measures(self) -> Measures:
        columns = {name: _joined([part[name] for part in self.parts], kind) for name, kind in _KINDS.items()}
        return Measures(sources=self.sources.names, languages=self.languages.names, **columns)


_KINDS = {
    "source": "int16",
    "language": "int16",
    "user": "int32",
    "answer": "int32",
    "rejected": "int32",
    "turns": "int32",
    "margin": "float64",
}


def _joined(parts: list[np.ndarray], kind: str) -> np.ndarray:
    import numpy as np

    whole: np.ndarray = np.concatenate([np.empty(0, kind), *parts]).astype(kind, copy=False)
    return whole


def _measure(table: pa.Table) -> dict[str, np.ndarray]:
    import numpy as np

    none = np.zeros(table.num_rows, "int32")
    if "messages" in table.column_names:
        user, turns = _of_role(table["messages"], "user")
        answer, _ = _of_role(table["messages"], "assistant")
        return {"user": user, "turns": turns, "answer": answer, "rejected": none, "margin": none * np.nan}
    user, turns = _of_role(table["prompt"], "user")
    answer, _ = _of_role(table["chosen"], "assistant")
    rejected, _ = _of_role(table["rejected"], "assistant")
    margin = table["margin"].to_numpy().astype("float64")
    return {"user": user, "turns": turns, "answer": answer, "rejected": rejected, "margin": margin}


def _of_role(column: pa.ChunkedArray, role: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the characters and the number of the turns of one role, a row each."""
    import numpy as np
    import pyarrow.compute as pc

    lists = column.combine_chunks()
    turns = lists.flatten()
    lengths = pc.utf8_length(turns.field("content")).fill_null(0).to_numpy(zero_copy_only=False)
    of_role = pc.equal(turns.field("role"), role).fill_null(False).to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(lists)), lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))[of_role]
    characters = np.bincount(row, weights=lengths[of_role], minlength=len(lists))
    return characters.astype("int32"), np.bincount(row, minlength=len(lists)).astype("int32")


@dataclass
class _Codes:
    """Numbers names in the order in which they come up."""

    names: list[str] = field(default_factory=list)

    def encode(self, column: pa.ChunkedArray) -> np.ndarray:
        import numpy as np

        encoded = column.combine_chunks().dictionary_encode()
        for name in encoded.dictionary.to_pylist():
            if name not in self.names:
                self.names.append(name)
        places = np.array([self.names.index(name) for name in encoded.dictionary.to_pylist()], "int16")
        return places[encoded.indices.to_numpy(zero_copy_only=False)] if len(places) else places


class _Sample:
    """Takes of each source the rows whose ids have the smallest hashes: random, and the same every time."""

    def __init__(self) -> None:
        # A heap of (negative hash, id, row) for each source: its first is the next to go.
        self._heaps: dict[int, list[tuple[int, str, dict[str, Any]]]] = {}

    def look(self, table: pa.Table, code: np.ndarray) -> None:
        import numpy as np

        ids = table["id"].to_pylist()
        digests = b"".join(hashlib.blake2b(row_id.encode(), digest_size=7).digest() + b"\0" for row_id in ids)
        hashes = np.frombuffer(digests, "<u8")
        for source in np.unique(code):
            heap = self._heaps.setdefault(int(source), [])
            limit = -heap[0][0] if len(heap) == EXAMPLES else 1 << 56
            for place in np.flatnonzero((code == source) & (hashes < limit)):
                entry = (-int(hashes[place]), ids[place])
                if entry[0] <= (heap[0][0] if len(heap) == EXAMPLES else -(1 << 56)):
                    continue
                if any(entry == (other[0], other[1]) for other in heap):
                    continue  # a row taken several times
                row = table.slice(int(place), 1).to_pylist()[0]
                if len(heap) == EXAMPLES:
                    heapq.heapreplace(heap, (*entry, row))
                else:
                    heapq.heappush(heap, (*entry, row))

    def rows(self, names: list[str]) -> dict[str, list[dict[str, Any]]]:
        return {names[code]: [row for _, _, row in sorted(heap, reverse=True)] for code, heap in self._heaps.items()}


def _count_pii(table: pa.Table, pii: dict[str, Counter[str]], rows: Counter[str]) -> None:
    import pyarrow.compute as pc

    marked = table.select(["source", "meta"]).filter(pc.match_substring(table["meta"], '"pii":{'))
    for source, meta in zip(marked["source"].to_pylist(), marked["meta"].to_pylist(), strict=True):
        masked = json.loads(meta).get("pii")
        if isinstance(masked, dict):
            pii.setdefault(source, Counter()).update(masked)
            rows[source] += 1
