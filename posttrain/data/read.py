"""Sources from files, folders and the hub, cut into chunks, and where they came from."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from posttrain.data.chunks import BYTE_ORDER_MARK, Chunk, Lines, Pairs, Rows, Unreadable, Values, parse_line
from posttrain.data.files import DataFile, Entry, check_source_exists, file_identity, find_files, is_hub_id
from posttrain.errors import UserError

if TYPE_CHECKING:
    import pyarrow

CHUNK_ROWS = 4096
CHUNK_BYTES = 32 << 20
LINE_BYTES = 64 << 20  # a longer line is no record, and would not fit into memory often enough

__all__ = ["Reading", "Unreadable", "check_source_exists", "read_records", "read_source"]


@dataclass(frozen=True)
class Reading:
    """An entry about to be read. `provenance` identifies what `chunks` holds: files by SHA-256, or the hub's commit."""

    chunks: Iterator[Chunk]
    provenance: dict[str, Any]

    @property
    def items(self) -> Iterator[dict[str, Any] | Unreadable]:
        """The records, parsed, and what is none."""
        return (item for chunk in self.chunks for item in chunk.items() if item is not None)


def read_source(entry: Entry) -> Reading:
    """Open an entry's files, or fetch its hub dataset.

    Raises:
        UserError: There is nothing to read at its path; while reading, a file is damaged.
    """
    path = entry.path if not Path(entry.path).is_absolute() else Path(entry.path).name
    aligned: Mapping[str, Path] | None = getattr(entry, "aligned_files", None)
    if aligned is not None:
        files = [DataFile(file, file.name) for file in aligned.values()]
        chunks = _numbered(_guarded(_read_pairs(dict(zip(aligned, files, strict=True))), files))
    elif is_hub_id(entry.path):
        dataset, commit, licence = _from_hub(entry)
        provenance: dict[str, Any] = {"path": path, "revision": commit, "files": []}
        if licence:
            provenance["license_stated"] = licence
        return Reading(_numbered(_read_dataset(dataset)), provenance)
    else:
        files = find_files(entry)
        chunks = _numbered(_from_files(files))
    return Reading(chunks, {"path": path, "revision": None, "files": [file_identity(file) for file in files]})


def read_records(entry: Entry) -> Iterator[dict[str, Any]]:
    """Yield the records of an entry, where there is no place to put what cannot be read.

    Raises:
        UserError: As `read_source`, and for the first line that is not a record.
    """
    for item in read_source(entry).items:
        if isinstance(item, Unreadable):
            raise UserError(f"{entry.path}: {item.reason}; correct or remove it")
        yield item


def _numbered(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    first = 0
    for chunk in chunks:
        yield replace(chunk, first=first)
        first += chunk.count


def _from_files(files: list[DataFile]) -> Iterator[Chunk]:
    sizes = [file.path.stat().st_size for file in files]
    total, before = max(1, sum(sizes)), 0
    for file, size in zip(files, sizes, strict=True):
        for chunk in _guarded(_read_file(file), [file]):
            yield replace(chunk, done=(before + chunk.done * size) / total)
        before += size


def _guarded(chunks: Iterator[Chunk], files: list[DataFile]) -> Iterator[Chunk]:
    """Turn the errors of damaged files into ones that name the file."""
    import pyarrow

    name = " and ".join(str(file.path) for file in files)
    try:
        yield from chunks
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{name}: is not a whole gzip file ({error}); fetch it again") from error
    except pyarrow.ArrowException as error:
        raise UserError(f"{name}: cannot be read ({_first_line(error)}); fetch it again") from error
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror or _first_line(error)}") from error


def _read_file(file: DataFile) -> Iterator[Chunk]:
    name = file.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return _read_parquet(file)
    if name.endswith(".arrow"):
        return _read_arrow(file)
    return _read_json(file) if name.endswith(".json") else _read_lines(file)


@dataclass
class _Stream:
    """A file read line by line, unpacked where it is a gzip file; `done` is the share of it that has been read."""

    raw: IO[bytes]
    lines: IO[bytes]
    size: int

    @classmethod
    def of(cls, file: DataFile) -> _Stream:
        raw = file.path.open("rb")
        lines: Any = gzip.open(raw) if file.name.endswith(".gz") else raw  # noqa: SIM115 - open as long as this
        return cls(raw, lines, max(1, file.path.stat().st_size))

    @property
    def done(self) -> float:
        return min(1.0, self.raw.tell() / self.size)

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()
        self.raw.close()

    def read(self) -> Iterator[bytes | None]:
        """Yield the lines; None stands for one longer than `LINE_BYTES`, which is skipped."""
        while line := self.lines.readline(LINE_BYTES):
            if len(line) < LINE_BYTES or line.endswith(b"\n"):
                yield line
                continue
            while (rest := self.lines.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield None


def _read_lines(file: DataFile) -> Iterator[Chunk]:
    with _Stream.of(file) as stream:
        waiting: list[bytes | None] = []
        size = number = 0
        for line in stream.read():
            number += 1
            if number == 1 and line is not None:
                line = line.removeprefix(BYTE_ORDER_MARK)
            waiting.append(line)
            size += len(line or b"")
            if len(waiting) == CHUNK_ROWS or size >= CHUNK_BYTES:
                yield Lines(0, len(waiting), stream.done, file.name, number - len(waiting) + 1, waiting)
                waiting, size = [], 0
        if waiting:
            yield Lines(0, len(waiting), 1.0, file.name, number - len(waiting) + 1, waiting)


def _read_pairs(files: dict[str, DataFile]) -> Iterator[Chunk]:
    (one, other), names = files.values(), {language: file.name for language, file in files.items()}
    with _Stream.of(one) as left, _Stream.of(other) as right:
        waiting: list[tuple[bytes, bytes]] = []
        number = 0
        for pair in zip_longest(left.read(), right.read(), fillvalue=b""):
            if b"" in pair:
                shorter = names[list(names)[pair.index(b"")]]
                raise UserError(f"{one.path} and {other.path}: {shorter} has fewer lines; they are not aligned")
            number += 1
            waiting.append((pair[0] or b"", pair[1] or b""))
            if len(waiting) == CHUNK_ROWS:
                yield Pairs(0, CHUNK_ROWS, left.done, names, number - CHUNK_ROWS + 1, waiting)
                waiting = []
        if waiting:
            yield Pairs(0, len(waiting), 1.0, names, number - len(waiting) + 1, waiting)


def _read_json(file: DataFile) -> Iterator[Chunk]:
    """Read a list of objects, an object that holds one under `data`, or lines under the wrong suffix."""
    with _Stream.of(file) as stream:
        content = stream.lines.read()
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        first = content.lstrip().partition(b"\n")[0]
        if isinstance(parse_line(first.removeprefix(BYTE_ORDER_MARK), ""), dict):
            yield from _read_lines(file)
            return
        problem = "it is empty" if not content.strip() else str(error)
        raise UserError(f"{file.path}: is not JSON: {problem}") from error
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    elif isinstance(value, dict):
        value = [value]  # JSON lines with one line
    if not isinstance(value, list):
        raise UserError(f"{file.path}: holds {type(value).__name__}; give a list of objects, or one under `data`")
    for start in range(0, len(value), CHUNK_ROWS):
        part = value[start : start + CHUNK_ROWS]
        yield Values(0, len(part), (start + len(part)) / len(value), file.name, start + 1, part)


def _table_chunks(batches: Iterator[pyarrow.RecordBatch], total: int) -> Iterator[Chunk]:
    read = 0
    for batch in batches:
        rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES * max(1, batch.num_rows) // max(1, batch.nbytes)))
        for start in range(0, batch.num_rows, rows):
            part = batch.slice(start, rows)
            read += part.num_rows
            yield Rows(0, part.num_rows, read / max(1, total), part)


def _read_parquet(file: DataFile) -> Iterator[Chunk]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file.path) as table:
        yield from _table_chunks(table.iter_batches(batch_size=CHUNK_ROWS), table.metadata.num_rows)


def _read_arrow(file: DataFile) -> Iterator[Chunk]:
    """Read Arrow's stream format, which `datasets` writes, or its file format."""
    import pyarrow

    with pyarrow.memory_map(str(file.path)) as source:
        try:
            batches = iter(pyarrow.ipc.open_stream(source))
            total = 0
        except pyarrow.ArrowInvalid:
            table = pyarrow.ipc.open_file(source)
            batches = (table.get_batch(number) for number in range(table.num_record_batches))
            total = 0
        for chunk in _table_chunks(batches, total):
            yield replace(chunk, done=min(1.0, source.tell() / max(1, source.size())))


def _read_dataset(dataset: Any) -> Iterator[Chunk]:
    tables = dataset.with_format("arrow").iter(CHUNK_ROWS)
    yield from _table_chunks((batch for table in tables for batch in table.to_batches()), len(dataset))


def _from_hub(entry: Entry) -> tuple[Any, str | None, str | None]:
    """Return a dataset of the hub, downloaded or cached, the commit that it was read at, and the licence it states."""
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    config = getattr(entry, "config", None)
    try:
        builder = datasets.load_dataset_builder(entry.path, config, revision=entry.revision)
        builder.download_and_prepare()
        dataset = builder.as_dataset(split=entry.split)
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, DatasetsError) as error:
        raise UserError(
            f"{entry.path}: is no local path, and as an id of the hub it cannot be read: {_first_line(error)}; check "
            "the id, `config`, `split`, `revision`, the network and your access, or download it and give the folder"
        ) from error
    # The builder's files are at hf://datasets/OWNER/NAME@COMMIT/; from the cache alone the commit is its hash.
    commit = re.search(r"\b[0-9a-f]{40}\b", f"{builder.base_path} {builder.hash}")
    return dataset, commit[0] if commit else entry.revision, getattr(builder.info, "license", None) or None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
