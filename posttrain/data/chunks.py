"""Pieces of a source as they are passed to the processes that parse them: cheap to cut, each parsed by itself."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import pyarrow

_SHOWN = 200  # characters of an unreadable line that are kept
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Unreadable:
    """A line or item that is no record: the beginning of its text, and why."""

    text: str
    reason: str


Item: TypeAlias = "dict[str, Any] | Unreadable | None"


@dataclass(frozen=True)
class Chunk(ABC):
    """A piece of a source.

    Attributes:
        first: Number of its first item in the source, from 0.
        count: How many items it has. One of them may be None: a blank line.
        done: The share of the source that has been read with it.
    """

    first: int
    count: int
    done: float

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """Parse the items, in order."""


@dataclass(frozen=True)
class Lines(Chunk):
    """JSON lines; `line` is the number of the first in `file`, from 1. A line of None was too long to be kept."""

    file: str
    line: int
    lines: Sequence[bytes | None]

    def items(self) -> Iterator[Item]:
        for number, line in enumerate(self.lines, self.line):
            where = f"line {number} of {self.file}"
            if line is None:
                yield Unreadable("", f"line too long: {where}")
            else:
                yield parse_line(line, where) if line.strip() else None


@dataclass(frozen=True)
class Values(Chunk):
    """Items of a JSON list, parsed already; `number` is that of the first in `file`, from 1."""

    file: str
    number: int
    values: Sequence[Any]

    def items(self) -> Iterator[Item]:
        for number, value in enumerate(self.values, self.number):
            yield as_object(value, f"item {number} of {self.file}")


@dataclass(frozen=True)
class Rows(Chunk):
    """Rows of a table."""

    batch: pyarrow.RecordBatch

    def items(self) -> Iterator[Item]:
        yield from self.batch.to_pylist()


@dataclass(frozen=True)
class Pairs(Chunk):
    """Lines of two files that belong together: each pair is a record `{"translation": {language: line}}`."""

    files: Mapping[str, str]
    line: int
    lines: Sequence[tuple[bytes, bytes]]

    def items(self) -> Iterator[Item]:
        for number, pair in enumerate(self.lines, self.line):
            texts = {}
            for (language, file), line in zip(self.files.items(), pair, strict=True):
                try:
                    texts[language] = line.decode().strip()
                except UnicodeDecodeError:
                    text = line[:_SHOWN].decode(errors="replace")
                    yield Unreadable(text, f"not UTF-8: line {number} of {file}")
                    break
            else:
                yield {"translation": texts}


def stretches(
    chunks: Iterable[Chunk], whole: bool, unreadable: Callable[[Unreadable], None]
) -> Iterator[tuple[int, Iterator[dict[str, Any]]]]:
    """Yield the records that follow each other without a gap, as converters take them, with the place of the first.

    A stretch ends at a blank line, at what is no record, and at the end of a chunk. Records are parsed as they are
    taken, so that nobody waits while thousands are.

    Args:
        chunks: Of one source, in order.
        whole: Whether the source is converted all at once: then there is one stretch, whatever the gaps.
        unreadable: Told of each item that is no record.
    """

    def records(chunk: Chunk) -> Iterator[tuple[int, dict[str, Any] | None]]:
        for place, item in enumerate(chunk.items(), chunk.first):
            if isinstance(item, Unreadable):
                unreadable(item)
            yield place, item if isinstance(item, dict) else None

    if whole:
        yield 0, (record for chunk in chunks for _, record in records(chunk) if record is not None)
        return
    for chunk in chunks:
        for missing, stretch in groupby(records(chunk), key=lambda item: item[1] is None):
            if not missing:
                place, first = next(stretch)
                yield place, (record for _, record in chain([(place, first)], stretch) if record is not None)


def parse_line(line: bytes, where: str) -> dict[str, Any] | Unreadable:
    """Parse one line of JSON; `where` is what a refusal calls it."""
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError:
        return Unreadable(line[:_SHOWN].decode(errors="replace"), f"not UTF-8: {where}")
    except (ValueError, RecursionError):
        return Unreadable(line.decode()[:_SHOWN].strip(), f"not JSON: {where}")
    return as_object(value, where)


def as_object(value: Any, where: str) -> dict[str, Any] | Unreadable:
    """Return a JSON object, or why it is none."""
    return value if isinstance(value, dict) else Unreadable(json.dumps(value)[:_SHOWN], f"not an object: {where}")
