"""The parquet files of a data folder: fixed schemas and row groups, so that equal rows are equal bytes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from posttrain.data.rows import PreferenceRow, Row, SftRow

if TYPE_CHECKING:
    import pyarrow

ROW_GROUP = 2048  # rows


def schema(kind: str) -> pyarrow.Schema:
    """Return the Arrow schema of `sft`, `preference` or `rejected`."""
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    about = [("source", pa.string()), ("language", pa.string()), ("license", pa.string()), ("meta", pa.string())]
    fields = {
        "sft": [("id", pa.string()), ("messages", messages), *about],
        "preference": [
            ("id", pa.string()),
            ("prompt", messages),
            ("chosen", messages),
            ("rejected", messages),
            ("margin", pa.float64()),
            *about,
        ],
        "rejected": [
            ("source", pa.string()),
            ("step", pa.string()),
            ("reason", pa.string()),
            ("detail", pa.string()),
            ("record", pa.string()),
        ],
    }
    return pa.schema(fields[kind])


class TableWriter:
    """Writes dicts to one parquet file, a row group at a time; a context manager."""

    def __init__(self, path: Path, kind: str) -> None:
        import pyarrow.parquet

        path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = schema(kind)
        self._names = self._schema.names
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Mapping[str, Any]] = []
        self.rows = 0

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; columns outside the schema are left out."""
        self._waiting.append({name: row[name] for name in self._names})
        self.rows += 1
        if len(self._waiting) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting = []

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()


def refused_record(source: str, step: str, reason: str, record: Any) -> dict[str, str]:
    """Return a row of `rejected.parquet`; `record` becomes JSON text, or stays the text that could not be read."""
    kind, _, detail = reason.partition(": ")
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=False, default=str)
    text = text.encode(errors="backslashreplace").decode()  # half surrogate pairs, which parquet cannot hold
    detail = detail.encode(errors="backslashreplace").decode()
    return {"source": source, "step": step, "reason": kind, "detail": detail, "record": text}


class Spool:
    """Rows of one set waiting on disk while their order is decided; the file has no name and ends with the process."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as the spool
        self._row_class: type[SftRow] | type[PreferenceRow] = SftRow if kind == "sft" else PreferenceRow

    def add(self, row: Row) -> int:
        """Store a row without its units and return where it is."""
        offset = self._file.seek(0, os.SEEK_END)
        values = {**vars(row), "units": ()}
        self._file.write(json.dumps(values, separators=(",", ":")).encode() + b"\n")
        return offset

    def get(self, offset: int) -> Row:
        """Return the row stored at an offset."""
        self._file.seek(offset)
        return self._row_class(**json.loads(self._file.readline()))

    def close(self) -> None:
        """Give the space back."""
        self._file.close()
