"""The documents of a text source in pieces, each with the place in the source at which the next one begins.

A source is read once and in order, with no more of it in memory than a few pieces; from any piece on it can be read
again. Its files, or the shards of a hub dataset, are in an order of their own drawn from the seed: of a source that is
longer than what is trained on, the files read are a sample and not the first by name.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from posttrain.assets import is_hub_id, locate
from posttrain.data.chunks import BYTE_ORDER_MARK, Unreadable, parse_line
from posttrain.data.files import DataFile, find_files
from posttrain.errors import UserError
from posttrain.recipe.schema import TextSource

PIECE_BYTES = 4 << 20  # of text, from which a piece is full
PIECE_ROWS = 4096
LONGEST = 64 << 20  # bytes; a longer document is set aside
TEXT = (".txt", ".txt.gz")
_SHOWN = 200  # characters of a document that is set aside


@dataclass(frozen=True)
class Place:
    """Where in a source reading goes on: the file's number in the order of reading, and a byte or row in it.

    Bytes are those of the unpacked file.
    """

    file: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Aside:
    """A document, or the rest of a file, that cannot be used: where it is, why, and how it begins."""

    where: str
    reason: str
    text: str = ""


@dataclass(frozen=True)
class Piece:
    """Some documents of a source, not parsed yet.

    Attributes:
        kind: `text` (paragraphs in UTF-8), `lines` (JSON objects) or `rows` (texts of a table).
        file: The file's name.
        items: The documents, each with the byte at which it begins, or with the number of its row from 0.
        after: Where the next piece begins.
        damage: Why the rest of the file cannot be read.
    """

    kind: str
    file: str
    items: list[Any]
    after: Place
    damage: str | None = None


Pieces: TypeAlias = Generator[Piece, None, None]


@dataclass(frozen=True)
class Opened:
    """A source that is about to be read: its pieces from a place on, and what identifies it."""

    pieces: Callable[[Place], Pieces]
    provenance: dict[str, Any]


def documents(piece: Piece, column: str) -> Iterator[str | Aside]:
    """Yield the documents of a piece in order, and what cannot be used.

    Args:
        piece: The piece.
        column: The column of a row that holds its text.

    Raises:
        UserError: If its rows have no such column.
    """
    for item in piece.items:
        if piece.kind == "rows":
            number, text = item
            yield _usable(text, f"row {number} of {piece.file}")
            continue
        start, content = item
        where = f"byte {start} of {piece.file}"
        if content is None:
            yield Aside(where, f"longer than {LONGEST >> 20} MiB")
        elif piece.kind == "lines":
            yield _parsed(content, column, where, piece.file)
        else:
            try:
                yield _usable(content.decode().replace("\r\n", "\n").strip(), where)
            except UnicodeDecodeError:
                yield Aside(where, "not UTF-8", content[:_SHOWN].decode(errors="replace"))
    if piece.damage is not None:
        yield Aside(piece.file, piece.damage)


def _usable(text: Any, where: str) -> str | Aside:
    if not isinstance(text, str):
        return Aside(where, "no text", repr(text)[:_SHOWN])
    if not text.strip():
        return Aside(where, "empty")
    return text if text.isascii() or not _has_surrogates(text) else Aside(where, "half a surrogate pair")


def _has_surrogates(text: str) -> bool:
    """JSON can spell characters that no encoding has, and the tokenizer takes none of them."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _parsed(line: bytes, column: str, where: str, file: str) -> str | Aside:
    record = parse_line(line, where)
    if isinstance(record, Unreadable):
        return Aside(where, record.reason.partition(":")[0], record.text)
    if column not in record:
        raise UserError(
            f"cpt.text: the rows of {file} have no column {column!r}; they have {', '.join(sorted(record))}"
        )
    return _usable(record[column], where)


def open_text(source: TextSource, seed: int, revision: str | None = None) -> Opened:
    """Open a text source.

    Args:
        source: The entry of the recipe.
        seed: Draws the order of its files.
        revision: The commit of a hub dataset that was read before; by default the entry's own revision.

    Raises:
        UserError: If there is nothing at its path that can be read, or the hub has no such dataset.
    """
    if is_hub_id(source.path):
        from posttrain.train.text_hub import open_hub

        return open_hub(source, seed, revision)
    files = ordered_files(find_text(source), seed)

    def pieces(start: Place) -> Pieces:
        for number in range(start.file, len(files)):
            offset = start.offset if number == start.file else 0
            with closing(_pieces(files[number], number, offset, source)) as found:
                yield from found

    # Their digests are in the stage's fingerprint already.
    sizes = [{"name": file.name, "bytes": file.path.stat().st_size} for file in files]
    path = source.path if not Path(source.path).is_absolute() else Path(source.path).name
    return Opened(pieces, {"path": path, "revision": None, "files": sizes})


def find_text(source: TextSource) -> list[DataFile]:
    """Return the files of a local source in the order of their names.

    Raises:
        UserError: If there are none, or a folder has both .txt files and tables.
    """
    root = Path(locate(source.path)).expanduser()
    if root.is_file() and root.name.endswith(TEXT):
        return [DataFile(root, root.name)]
    plain = []
    if root.is_dir():
        found = (path for path in root.rglob("*") if path.name.endswith(TEXT) and path.is_file())
        plain = sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))
    try:
        rows = find_files(source)
    except UserError as error:
        if plain:
            return [DataFile(path, path.relative_to(root).as_posix()) for path in plain]
        raise UserError([f"cpt.text: {problem}" for problem in error.problems]) from error
    if plain:
        raise UserError(
            f"cpt.text: {source.path} has both {plain[0].name} and {rows[0].name}; give a folder of one kind"
        )
    return rows


def ordered_files(files: list[DataFile], seed: int) -> list[DataFile]:
    """Return files in the order of reading, which depends on their names and the seed."""
    return sorted(files, key=lambda file: hashlib.sha256(f"{seed}\0file\0{file.name}".encode()).digest())


def _pieces(file: DataFile, number: int, offset: int, source: TextSource) -> Pieces:
    name = file.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        from posttrain.train.text_tables import parquet_pieces

        return parquet_pieces(file, number, offset, source.column)
    if name.endswith((".txt", ".jsonl")):
        return _line_pieces(file, number, offset, "text" if name.endswith(".txt") else "lines")
    from posttrain.train.text_tables import record_pieces

    return record_pieces(file, number, offset, source)


def _line_pieces(file: DataFile, number: int, offset: int, kind: str) -> Pieces:
    """Read paragraphs or lines; what is complete before a damaged place is read."""
    packed = file.name.endswith(".gz")
    raw: Any = file.path.open("rb")
    stream: IO[bytes] = gzip.open(raw) if packed else raw  # type: ignore[assignment]  # noqa: SIM115 - open as long
    with raw, stream:
        items: list[tuple[int, bytes | None]] = []
        size, at = 0, offset
        damage = None
        try:
            stream.seek(offset)
            for start, end, content in (_paragraphs if kind == "text" else _lines)(stream, offset):
                at = end
                if content is not None and not content.strip():
                    continue
                items.append((start, content))
                size += len(content or b"")
                if size >= PIECE_BYTES or len(items) >= PIECE_ROWS:
                    yield Piece(kind, file.name, items, Place(number, at))
                    items, size = [], 0
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            damage = f"not a whole gzip file: {error}"
        except OSError as error:
            raise UserError(f"{file.path}: cannot be read: {error.strerror or error}") from error
        yield Piece(kind, file.name, items, Place(number + 1), damage)


def _lines(stream: IO[bytes], at: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield each line with the bytes at which it begins and ends; None stands for one that is too long."""
    while line := stream.readline(LONGEST):
        start, at = at, at + len(line)
        if len(line) < LONGEST or line.endswith(b"\n"):
            yield start, at, line.removeprefix(BYTE_ORDER_MARK) if start == 0 else line
            continue
        while (rest := stream.readline(LONGEST)) and not rest.endswith(b"\n"):
            at += len(rest)
        at += len(rest)
        yield start, at, None


def _paragraphs(stream: IO[bytes], at: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield what empty lines part, likewise."""
    begin, waiting, size, whole = at, list[bytes](), 0, True
    for start, end, line in _lines(stream, at):
        if line is not None and line in (b"\n", b"\r\n"):
            if waiting or not whole:
                yield begin, end, b"".join(waiting) if whole else None
            begin, waiting, size, whole = end, [], 0, True
            continue
        if not waiting and whole:
            begin = start
        size += len(line or b"")
        whole = whole and line is not None and size < LONGEST
        if whole:
            assert line is not None
            waiting.append(line)
        else:
            waiting.clear()
        at = end
    if waiting or not whole:
        yield begin, at, b"".join(waiting) if whole else None
