"""The parquet files of a data folder: fixed schemas and row groups, so that equal rows are equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

    from posttrain.data.rows import Row

ROW_GROUP = 2048  # rows


def schema(kind: str) -> pyarrow.Schema:
    """Return the Arrow schema of `sft`, `preference`, `rejected` or `duplicates`."""
    import pyarrow as pa

    text = pa.string()
    messages = pa.list_(pa.struct([("role", text), ("content", text)]))
    about = [("source", text), ("language", text), ("license", text), ("meta", text)]
    fields = {
        "sft": [("id", text), ("messages", messages), *about],
        "preference": [
            ("id", text),
            ("prompt", messages),
            ("chosen", messages),
            ("rejected", messages),
            ("margin", pa.float64()),
            *about,
        ],
        "rejected": [(name, text) for name in ("source", "step", "reason", "detail", "record")],
        "duplicates": [
            *((name, text) for name in ("source", "kept_source", "step", "removed_id", "kept_id")),
            ("similarity", pa.float32()),
            ("removed_text", text),
            ("kept_text", text),
        ],
    }
    return pa.schema(fields[kind])


def table_of(kind: str, rows: Sequence[Mapping[str, Any]]) -> pyarrow.Table:
    """Return rows as a table of one kind; columns outside its schema are left out."""
    import pyarrow as pa

    wanted = schema(kind)
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in wanted]
    return pa.Table.from_arrays(columns, schema=wanted)


def read_arrow(path: Path) -> pyarrow.Table:
    """Read an Arrow file."""
    import pyarrow as pa

    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
        return reader.read_all()


def row_table(kind: str, rows: Sequence[Row]) -> pyarrow.Table:
    """Return rows of a contract as a table, without their units."""
    return table_of(kind, [vars(row) for row in rows])


class TableWriter:
    """Writes tables to one parquet file in row groups of `ROW_GROUP` rows, however they come; a context manager."""

    def __init__(self, path: Path, kind: str) -> None:
        import pyarrow.parquet

        path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = schema(kind)
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[pyarrow.Table] = []
        self._held = 0
        self.rows = 0

    def write(self, table: pyarrow.Table) -> None:
        """Add the rows of a table of this kind."""
        self._waiting.append(table)
        self._held += table.num_rows
        self.rows += table.num_rows
        if self._held >= ROW_GROUP:
            self._flush(self._held - self._held % ROW_GROUP)

    def _flush(self, rows: int) -> None:
        import pyarrow as pa

        if not rows:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        for start in range(0, rows, ROW_GROUP):
            self._writer.write_table(table.slice(start, min(ROW_GROUP, rows - start)), row_group_size=ROW_GROUP)
        rest = table.slice(rows)
        self._waiting, self._held = ([rest], rest.num_rows) if rest.num_rows else ([], 0)

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush(self._held)
        self._writer.close()


def refused_record(source: str, step: str, reason: str, record: Any) -> dict[str, str]:
    """Return a row of `rejected.parquet`; `record` becomes JSON text, or stays the text that could not be read."""
    kind, _, detail = reason.partition(": ")
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=False, default=str)
    text = text.encode(errors="backslashreplace").decode()  # half surrogate pairs, which parquet cannot hold
    detail = detail.encode(errors="backslashreplace").decode()
    return {"source": source, "step": step, "reason": kind, "detail": detail, "record": text}
