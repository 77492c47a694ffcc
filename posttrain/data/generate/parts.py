"""The rows that a `generate` entry wrote, in parquet parts that are whole or not there, and what says that all are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from posttrain.data.generate.rows import InputRow, Outcome
from posttrain.data.rows import meta_text, reason_kind
from posttrain.data.sources.generated import GENERATED
from posttrain.errors import UserError

if TYPE_CHECKING:
    import pyarrow

    from posttrain.data.tables import TableWriter

PART_ROWS = 1024
DONE = "done.json"
REFUSED = "refused.parquet"
BEFORE = "before"  # the key, in what rollouts added to `meta`, of what they had added while the messages were others
_PART = re.compile(r"part-\d{5,}\.parquet")


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run came to: rows, those that failed (by reason), parts, and by reason what no row was made of."""

    rows: int = 0
    failed: int = 0
    parts: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def written(self) -> int:
        """The rows that have messages."""
        return self.rows - self.failed


def schema() -> pyarrow.Schema:
    """Return the Arrow schema of a part. `messages` is null and `failed` says why where a row has none."""
    import pyarrow as pa

    text = pa.string()
    messages = pa.list_(pa.struct([("role", text), ("content", text)]))
    return pa.schema(
        [
            ("number", pa.int64()),
            ("id", text),
            ("messages", messages),
            ("language", text),
            ("license", text),
            ("meta", text),
            ("failed", text),
            ("input", messages),
        ]
    )


def record_of(row: InputRow, outcome: Outcome) -> dict[str, Any]:
    """Return a row of a part. An answer that cannot be kept as text fails the row.

    What the rollout adds joins what earlier ones added, if the messages are still the same, or else stands before it.

    Raises:
        ValueError: The outcome has neither messages nor a reason.
    """
    messages, failed = outcome.messages, outcome.failed
    if failed is None:
        if messages is None:
            raise ValueError("an outcome has neither messages nor a reason why there are none")
        failed = _not_text(messages)
    meta, known = row.meta, row.meta.get(GENERATED)
    if not isinstance(known, dict):
        known = {}  # a source may have a column of that name
    if known and messages is not None and messages != row.messages:
        known = {BEFORE: known}  # a rating of the old answer says nothing about the new one
    if known or outcome.meta:
        meta = {**meta, GENERATED: {**known, **outcome.meta}}
    return {
        "number": row.number,
        "id": row.id,
        "messages": messages if failed is None else None,
        "language": outcome.language or row.language,
        "license": row.license,
        "meta": meta_text(meta),
        "failed": None if failed is None else failed.encode(errors="backslashreplace").decode(),
        "input": row.messages,
    }


def _not_text(messages: list[dict[str, str]]) -> str | None:
    """Return a reason if a content holds half of a surrogate pair, which JSON can carry and UTF-8 cannot."""
    for number, message in enumerate(messages, 1):
        try:
            message["content"].encode()
        except UnicodeEncodeError:
            return f"content is not valid Unicode: message {number}"
    return None


class PartWriter:
    """Writes rows to `part-00000.parquet` and so on, `part_rows` in each; a part appears when it is whole."""

    def __init__(self, folder: Path, part_rows: int, parts: int = 0) -> None:
        self._folder = folder
        self._part_rows = part_rows
        self._rows: list[dict[str, Any]] = []
        self.parts = parts

    def add(self, record: dict[str, Any]) -> None:
        """Add a row, made by `record_of`."""
        self._rows.append(record)
        if len(self._rows) == self._part_rows:
            self._write()

    def close(self) -> None:
        """Write the last part; call it only when there are no more rows."""
        if self._rows:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from posttrain.data.tables import ROW_GROUP

        columns = [pa.array([row[column.name] for row in self._rows], column.type) for column in schema()]
        table = pa.Table.from_arrays(columns, schema=schema())
        path = part_path(self._folder, self.parts)
        waiting = _unfinished(path)
        pq.write_table(table, waiting, compression="zstd", row_group_size=ROW_GROUP)
        _put(waiting, path)
        self.parts += 1
        self._rows = []


def part_path(folder: Path, number: int) -> Path:
    """Return where a part lies."""
    return folder / f"part-{number:05}.parquet"


def part_files(folder: Path) -> list[Path]:
    """Return the parts in a folder, which are all whole, in order.

    Raises:
        UserError: One is missing before another.
    """
    count = sum(1 for path in folder.glob("part-*.parquet") if _PART.fullmatch(path.name))
    paths = [part_path(folder, number) for number in range(count)]
    if missing := next((path for path in paths if not path.exists()), None):
        raise UserError(f"{folder}: {missing.name} is missing, and later parts are there; delete the later ones")
    return paths


def read_part(path: Path, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """Return the rows of a part, or only some columns of them.

    Raises:
        UserError: The file is damaged.
    """
    import pyarrow
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as part:
            rows: list[dict[str, Any]] = part.read(columns).to_pylist()
            return rows
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it and the parts after it") from error


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a finished entry in order; memory holds one part of them.

    Raises:
        UserError: The entry is not finished.
    """
    if finished(folder) is None:
        raise UserError(f"{folder}: is not finished; run the entry that writes it first")
    for path in part_files(folder):
        yield from read_part(path)


def finished(folder: Path) -> RunSummary | None:
    """Return what a finished run came to, or None where it is not finished.

    Raises:
        UserError: The file that says so is damaged.
    """
    path = folder / DONE
    try:
        return RunSummary(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete it, and the same command writes it anew from the rows beside "
            "it; a complete stage is built again with --force generate"
        ) from error


def finish(folder: Path, summary: RunSummary) -> None:
    """Mark a folder as whole."""
    path = folder / DONE
    waiting = _unfinished(path)
    waiting.write_text(json.dumps(asdict(summary), indent=2, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
    _put(waiting, path)


class Refusals:
    """Counts what no input row was made of, and writes it to `refused.parquet`; a context manager.

    Reading begins anew with every run, so a run that was cut off leaves no file, and the next one writes all of it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / REFUSED
        self._writer: TableWriter | None = None
        self.reasons: dict[str, int] = {}

    def add(self, source: str, step: str, reason: str, record: Mapping[str, Any] | str) -> None:
        """Note one record, or the beginning of a line that is none."""
        from posttrain.data.tables import TableWriter, refused_record, table_of

        if self._writer is None:
            self._writer = TableWriter(_unfinished(self._path), "rejected")
        self._writer.write(table_of("rejected", [refused_record(source, step, reason, record)]))
        self.reasons[reason_kind(reason)] = self.reasons.get(reason_kind(reason), 0) + 1

    def finish(self) -> None:
        """Put the file in place, once all input has been read."""
        if self._writer is not None:
            self._writer.__exit__(None, None, None)
            self._writer = None
            _put(_unfinished(self._path), self._path)

    def __enter__(self) -> Refusals:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)
            self._writer = None
            _unfinished(self._path).unlink()


def _unfinished(path: Path) -> Path:
    """Return where a file is written first; the name is hidden, so that it is never read as data."""
    return path.with_name(f".{path.name}.new")


def _put(waiting: Path, path: Path) -> None:
    """Rename a written file, when it is on disk: after a power cut too, what has the name is whole."""
    with waiting.open("rb") as stream:
        os.fsync(stream.fileno())
    waiting.replace(path)
