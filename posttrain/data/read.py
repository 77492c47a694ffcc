"""Records from files, folders and the hub, one dict each, and where they came from."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.data.files import DataFile, Entry, check_source_exists, file_identity, find_files, is_hub_id
from posttrain.errors import UserError

_SHOWN = 200  # characters of an unreadable line that are kept
_BATCH = 1024  # rows of parquet and arrow turned into dicts at once

__all__ = ["Reading", "Unreadable", "check_source_exists", "read_records", "read_source"]


@dataclass(frozen=True)
class Unreadable:
    """A line or item that is no record: the beginning of its text, and why."""

    text: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """An entry about to be read. `provenance` identifies what `items` yields: files by SHA-256, or the hub's commit."""

    items: Iterator[dict[str, Any] | Unreadable]
    provenance: dict[str, Any]


def read_source(entry: Entry) -> Reading:
    """Open an entry's files, or fetch its hub dataset.

    Raises:
        UserError: There is nothing to read at its path; while reading, a file is damaged.
    """
    path = entry.path if not Path(entry.path).is_absolute() else Path(entry.path).name
    if is_hub_id(entry.path):
        dataset, commit = _from_hub(entry)
        return Reading(iter(dataset), {"path": path, "revision": commit, "files": []})
    files = find_files(entry)
    identities = [file_identity(file) for file in files]
    return Reading(_from_files(files), {"path": path, "revision": None, "files": identities})


def read_records(entry: Entry) -> Iterator[dict[str, Any]]:
    """Yield the records of an entry, where there is no place to put what cannot be read.

    Raises:
        UserError: As `read_source`, and for the first line that is not a record.
    """
    for item in read_source(entry).items:
        if isinstance(item, Unreadable):
            raise UserError(f"{entry.path}: {item.reason}; correct or remove it")
        yield item


def _from_files(files: list[DataFile]) -> Iterator[dict[str, Any] | Unreadable]:
    import pyarrow

    for file in files:
        try:
            yield from _read_file(file)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{file.path}: is not a whole gzip file ({error}); fetch it again") from error
        except pyarrow.ArrowException as error:
            raise UserError(f"{file.path}: cannot be read ({_first_line(error)}); fetch it again") from error
        except OSError as error:
            raise UserError(f"{file.path}: cannot be read: {error.strerror or _first_line(error)}") from error


def _read_file(file: DataFile) -> Iterator[dict[str, Any] | Unreadable]:
    name = file.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return _read_parquet(file)
    if name.endswith(".arrow"):
        return _read_arrow(file)
    return _read_json(file) if name.endswith(".json") else _read_lines(file)


def _bytes_of(file: DataFile) -> Any:
    return gzip.open(file.path, "rb") if file.name.endswith(".gz") else file.path.open("rb")


def _read_lines(file: DataFile) -> Iterator[dict[str, Any] | Unreadable]:
    with _bytes_of(file) as stream:
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
            if line.strip():
                yield _parse_line(line, f"line {number} of {file.name}")


def _parse_line(line: bytes, where: str) -> dict[str, Any] | Unreadable:
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError:
        return Unreadable(line[:_SHOWN].decode(errors="replace"), f"not UTF-8: {where}")
    except (ValueError, RecursionError):
        return Unreadable(line.decode()[:_SHOWN].strip(), f"not JSON: {where}")
    return _object(value, where)


def _object(value: Any, where: str) -> dict[str, Any] | Unreadable:
    return value if isinstance(value, dict) else Unreadable(json.dumps(value)[:_SHOWN], f"not an object: {where}")


def _read_json(file: DataFile) -> Iterator[dict[str, Any] | Unreadable]:
    """Read a list of objects, an object that holds one under `data`, or lines under the wrong suffix."""
    with _bytes_of(file) as stream:
        content: bytes = stream.read()
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        first = content.lstrip().partition(b"\n")[0]
        if isinstance(_parse_line(first.removeprefix(b"\xef\xbb\xbf"), ""), dict):
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
    for number, item in enumerate(value, 1):
        yield _object(item, f"item {number} of {file.name}")


def _read_parquet(file: DataFile) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file.path) as table:
        for batch in table.iter_batches(batch_size=_BATCH):
            yield from batch.to_pylist()


def _read_arrow(file: DataFile) -> Iterator[dict[str, Any]]:
    """Read Arrow's stream format, which `datasets` writes, or its file format."""
    import pyarrow

    with pyarrow.memory_map(str(file.path)) as source:
        try:
            batches = iter(pyarrow.ipc.open_stream(source))
        except pyarrow.ArrowInvalid:
            table = pyarrow.ipc.open_file(source)
            batches = (table.get_batch(number) for number in range(table.num_record_batches))
        for batch in batches:
            for start in range(0, batch.num_rows, _BATCH):
                yield from batch.slice(start, _BATCH).to_pylist()


def _from_hub(entry: Entry) -> tuple[Any, str | None]:
    """Return a dataset of the hub, downloaded or cached, and the commit that it was read at."""
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
    return dataset, commit[0] if commit else entry.revision


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
