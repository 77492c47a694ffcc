"""The files of one set from its parts: rows in seeded order, what was rejected, and which rows were duplicates.

Rows are put in order without holding them: each part, read once, is dealt out to buckets of consecutive places, and
each bucket, which fits into memory, is then ordered and written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.data.choose import Fate, Part, Pool
from posttrain.data.split import hex_id, ordinals
from posttrain.data.tables import ROW_GROUP, TableWriter, read_arrow, refused_record, table_of

if TYPE_CHECKING:
    import numpy
    import pyarrow

BUCKET = 16 * ROW_GROUP  # rows
EXAMPLES = 25  # duplicates of each kind whose texts are kept for the report
_EXCERPT = 300  # characters
_PLACE = "place"
# What `duplicates.parquet` calls the way in which a row was found to be one.
FOUND_BY = {Fate.DUPLICATE: "exact", Fate.NEAR_DUPLICATE: "near", Fate.SEMANTIC_DUPLICATE: "semantic"}
STEPS = {
    Fate.DUPLICATE: "dedup",
    Fate.NEAR_DUPLICATE: "near_duplicates",
    Fate.SEMANTIC_DUPLICATE: "semantic_duplicates",
    Fate.HELD_OUT_ELSEWHERE: "split",
}
REASONS = {
    Fate.DUPLICATE: "duplicate",
    Fate.NEAR_DUPLICATE: "near duplicate",
    Fate.SEMANTIC_DUPLICATE: "semantic duplicate",
    Fate.HELD_OUT_ELSEWHERE: "prompt held out of another set",
}


@dataclass(frozen=True)
class Written:
    """How many rows each file of a set has."""

    train: int
    validation: int
    rejected: int


def assemble(rows: Pool, folder: Path, work: Path, seed: int, advance: Callable[[str, float], None]) -> Written:
    """Write `train`, `validation`, `rejected` and, where there are any, `duplicates` of a set as parquet.

    Args:
        rows: The set, every row's fate decided.
        folder: Where to write.
        work: A folder for buckets, which are removed at the end.
        seed: Decides the order.
        advance: Called with what is being done and the share of it that is done.
    """
    buckets = work / f"buckets-{rows.kind}"
    shutil.rmtree(buckets, ignore_errors=True)
    orders = {"train": _order(rows, Fate.TRAIN, seed), "validation": _order(rows, Fate.VALIDATION, seed)}
    examples = _Examples(rows, seed)
    with ExitStack() as stack:
        dealers = {name: stack.enter_context(_Dealer(order, buckets / name)) for name, order in orders.items()}
        rejected = stack.enter_context(TableWriter(folder / "rejected.parquet", "rejected"))
        for number, part in enumerate(rows.parts, 1):
            table = read_arrow(part.folder / "rows.arrow")
            for dealer in dealers.values():
                dealer.deal(part, table)
            rejected.write(read_arrow(part.folder / "rejected.arrow"))
            rejected.write(_rejected(rows, part, table))
            examples.collect(part, table)
            advance(f"{rows.kind}: sorting", number / len(rows.parts))
    for name, dealer in dealers.items():
        with TableWriter(folder / f"{name}.parquet", rows.kind) as writer:
            for number, table in enumerate(dealer.collect(), 1):
                writer.write(table)
                advance(f"{rows.kind}: writing {name}", number / max(1, dealer.buckets))
    shutil.rmtree(buckets, ignore_errors=True)
    _write_duplicates(rows, examples, folder)
    return Written(len(orders["train"]), len(orders["validation"]), rejected.rows)


def _order(rows: Pool, fate: Fate, seed: int) -> numpy.ndarray:
    """Return the numbers of the rows of a file in the order of their seeded ordinals, repeated rows several times."""
    import numpy as np

    chosen = np.flatnonzero(rows.fate == fate)
    name = f"order\0{rows.kind}"
    if fate == Fate.VALIDATION:
        keys = ordinals(seed, name, rows.keys["id"][chosen].tolist())
        return chosen[np.argsort(keys, kind="stable")]
    copies = rows.copies[chosen]
    repeated = np.repeat(chosen, copies)
    keys = ordinals(
        seed,
        name,
        rows.keys["id"][repeated].tolist(),
        copies=[copy for several in copies.tolist() for copy in range(several)],
    )
    return repeated[np.argsort(keys, kind="stable")]


class _Dealer:
    """Deals the rows of parts out to the buckets of one file; a context manager."""

    def __init__(self, order: numpy.ndarray, folder: Path) -> None:
        import numpy as np

        self._folder = folder
        self._places = np.argsort(order, kind="stable")  # by row
        self._rows = order[self._places]
        self.buckets = -(-len(order) // BUCKET)
        self._writers: dict[int, Any] = {}

    def __enter__(self) -> _Dealer:
        self._folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def deal(self, part: Part, table: pyarrow.Table) -> None:
        """Put the rows of a part that belong into this file where they will be sorted."""
        import numpy as np
        import pyarrow as pa

        first, last = np.searchsorted(self._rows, [part.first, part.first + part.rows])
        if first == last:
            return
        places = self._places[first:last]
        by_bucket = np.argsort(places // BUCKET, kind="stable")
        places = places[by_bucket]
        taken = table.take(self._rows[first:last][by_bucket] - part.first)
        taken = taken.append_column(_PLACE, pa.array(places, pa.int64()))
        numbers, starts = np.unique(places // BUCKET, return_index=True)
        for number, start, end in zip(numbers, starts, [*starts[1:], len(places)], strict=True):
            self._writer(int(number), taken.schema).write_table(taken.slice(start, end - start))

    def _writer(self, number: int, schema: pyarrow.Schema) -> Any:
        import pyarrow as pa

        if number not in self._writers:
            self._writers[number] = pa.ipc.new_stream(self._folder / f"{number:06}.arrow", schema)
        return self._writers[number]

    def collect(self) -> Iterator[pyarrow.Table]:
        """Yield the rows of each bucket in order, and give its space back."""
        import numpy as np
        import pyarrow as pa

        for number in range(self.buckets):
            path = self._folder / f"{number:06}.arrow"
            with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as reader:
                table = reader.read_all().combine_chunks()
            order = np.argsort(table.column(_PLACE).to_numpy(), kind="stable")
            yield table.drop_columns([_PLACE]).take(order)
            path.unlink()


def _rejected(rows: Pool, part: Part, table: pyarrow.Table) -> pyarrow.Table:
    """Return the rows of a part that were refused for the sake of other rows, with the reason."""
    import numpy as np

    fate = rows.fate[part.first : part.first + part.rows]
    chosen = np.flatnonzero(np.isin(fate, list(STEPS)))
    records = []
    for at, record in zip(chosen.tolist(), table.take(chosen).to_pylist(), strict=True):
        row = part.first + at
        step = STEPS[Fate(int(rows.fate[row]))]
        records.append(refused_record(rows.options[part.entry].label, step, reason(rows, row), record))
    return table_of("rejected", records)


def reason(rows: Pool, row: int) -> str:
    """Say why a row was refused for the sake of other rows."""
    fate = Fate(int(rows.fate[row]))
    if fate == Fate.HELD_OUT_ELSEWHERE:
        return REASONS[fate]
    other = int(rows.of[row])
    source = rows.options[int(rows.entry[other])].label
    kept = hex_id(rows.keys["id"][other])
    if fate == Fate.DUPLICATE:
        return f"{REASONS[fate]}: of a row of {source}, {kept}"
    return f"{REASONS[fate]}: {rows.similarity[row]:.2f} like a row of {source}, {kept}"


class _Examples:
    """The prompts of some duplicates and of the rows that stay instead, picked up as the parts go by."""

    def __init__(self, rows: Pool, seed: int) -> None:
        import numpy as np

        self._kind = rows.kind
        self.removed: set[int] = set()
        for fate in FOUND_BY:
            found = np.flatnonzero(rows.fate == fate)
            keys = ordinals(seed, "example", rows.keys["id"][found].tolist())
            self.removed.update(found[np.argsort(keys, kind="stable")[:EXAMPLES]].tolist())
        wanted = self.removed | {int(rows.of[row]) for row in self.removed}
        self._wanted = np.array(sorted(wanted), np.int64)
        self.texts: dict[int, str] = {}

    def collect(self, part: Part, table: pyarrow.Table) -> None:
        import numpy as np

        first, last = np.searchsorted(self._wanted, [part.first, part.first + part.rows])
        for row in self._wanted[first:last].tolist():
            record = table.slice(row - part.first, 1).to_pylist()[0]
            messages = record["prompt"] if self._kind == "preference" else record["messages"]
            prompts = [message["content"] for message in messages if message["role"] == "user"]
            self.texts[row] = "\n\n".join(prompts)[:_EXCERPT]


def _write_duplicates(rows: Pool, examples: _Examples, folder: Path) -> None:
    import numpy as np

    removed = np.flatnonzero(rows.of >= 0)
    if not len(removed):
        return
    with TableWriter(folder / "duplicates.parquet", "duplicates") as writer:
        for start in range(0, len(removed), ROW_GROUP):
            records = []
            for row in removed[start : start + ROW_GROUP].tolist():
                other = int(rows.of[row])
                shown = row in examples.removed
                records.append(
                    {
                        "source": rows.options[int(rows.entry[row])].label,
                        "kept_source": rows.options[int(rows.entry[other])].label,
                        "step": FOUND_BY[Fate(int(rows.fate[row]))],
                        "removed_id": hex_id(rows.keys["id"][row]),
                        "kept_id": hex_id(rows.keys["id"][other]),
                        "similarity": float(rows.similarity[row]),
                        "removed_text": examples.texts[row] if shown else None,
                        "kept_text": examples.texts[other] if shown else None,
                    }
                )
            writer.write(table_of("duplicates", records))
