"""The documents that quantisation is calibrated on and measured on: read, drawn by the seed, and kept apart."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from posttrain.assets import is_hub_id, locate
from posttrain.data.files import SUFFIXES
from posttrain.errors import UserError
from posttrain.recipe.schema_quantize import TextSet

_TEXT = (".txt", ".txt.gz")
_LOOK = 32  # records that decide the shape of a set
_CHARACTERS = 8  # of a token, generously: how much text is kept for a set of so many tokens
_HELD = 4  # times as much is held in memory before the rest is let go


@dataclass(frozen=True)
class Document:
    """A document or conversation.

    Attributes:
        id: Hash of its content.
        text: Plain text; empty for a conversation.
        messages: The turns of a conversation, else none.
        marks: Hashes by which it is told to be the same as another: of the text without case and spacing, and of a
            conversation's opening.
    """

    id: str
    text: str
    messages: tuple[dict[str, str], ...]
    marks: frozenset[str]

    @property
    def size(self) -> int:
        """Characters."""
        return len(self.text) + sum(len(turn["content"]) for turn in self.messages)


def set_name(settings: TextSet, fallback: str) -> str:
    """Return what cards call a set: never a path, which another machine does not have."""
    if settings.name is not None:
        return settings.name
    if settings.path is None:
        return fallback
    return settings.path if is_hub_id(settings.path) else PurePath(settings.path).name


def read_documents(settings: TextSet, key: str) -> Iterator[Document]:
    """Yield the documents of a set in its own order.

    Raises:
        UserError: There is none such, or its rows hold neither conversations nor text; the message begins with `key`.
    """
    assert settings.path is not None, "the recipe's own rows have a file by now"
    if settings.column is not None or _is_plain(settings.path):
        return _plain(settings, settings.column or "text", key)
    return _rows(settings, key)


def _is_plain(path: str) -> bool:
    if is_hub_id(path):
        return False
    there = Path(locate(path)).expanduser()
    if there.is_dir():
        names = [file.name for file in there.rglob("*") if file.is_file()]
        return any(name.endswith(_TEXT) for name in names) and not any(name.endswith(SUFFIXES) for name in names)
    return there.name.endswith(_TEXT)


def _plain(settings: TextSet, column: str, key: str) -> Iterator[Document]:
    from posttrain.recipe.schema import TextSource
    from posttrain.train.text import read_documents as read_text

    assert settings.path is not None
    source = TextSource(
        path=settings.path,
        revision=settings.revision,
        config=settings.config,
        split=settings.split,
        column=column,
    )
    try:
        for text in read_text(source, seed=0):
            if isinstance(text, str):
                yield _document(text, ())
    except UserError as error:
        raise UserError([f"{key}: {problem.removeprefix('cpt.text: ')}" for problem in error.problems]) from error


def _rows(settings: TextSet, key: str) -> Iterator[Document]:
    from itertools import chain, islice

    from posttrain.data.read import Unreadable, read_source
    from posttrain.data.rows import SftRow
    from posttrain.data.sources.generic import PROMPT_SHAPES, SFT_SHAPES, Generic, prepare, to_sft

    assert settings.path is not None
    entry = Generic(
        source="generic",
        path=settings.path,
        revision=settings.revision,
        config=settings.config,
        split=settings.split,
    )
    try:
        records = (item for item in read_source(entry).items if not isinstance(item, Unreadable))
        first = list(islice(records, _LOOK))
        if not first:
            raise UserError(f"{settings.path}: holds no rows")
        prepared = prepare(entry, first)
    except UserError as error:
        raise UserError([f"{key}: {problem}" for problem in error.problems]) from error
    shapes = getattr(prepared, "shapes", ())
    every: Iterable[Any] = chain(first, records)
    if any(shape.name in shapes for shape in SFT_SHAPES):
        for row in to_sft(every, prepared, 0):
            if isinstance(row, SftRow):
                yield _document("", row.messages)
    elif PROMPT_SHAPES[-1].name in shapes:  # a column `text`
        for record in every:
            if isinstance(text := record.get("text"), str) and text.strip():
                yield _document(text, ())
    else:
        raise UserError(
            f"{key}: the rows of {settings.path} hold neither conversations nor a column `text`; name the column with "
            "`column`"
        )


def _document(text: str, messages: Sequence[dict[str, str]]) -> Document:
    turns = tuple(dict(turn) for turn in messages)
    opening = next((turn["content"] for turn in turns if turn["role"] == "user"), "")
    whole = "\n".join([text, *(f"{turn['role']}\n{turn['content']}" for turn in turns)])
    marks = {_mark(whole)} | ({_mark(opening)} if opening else set())
    return Document(hashlib.sha256(whole.encode()).hexdigest(), text, turns, frozenset(marks))


def _mark(text: str) -> str:
    return hashlib.sha256(" ".join(text.casefold().split()).encode()).hexdigest()


def draw(documents: Iterable[Document], tokens: int, seed: int, without: Collection[str] = ()) -> list[Document]:
    """Return documents in an order drawn from the seed: all of them, or enough for so many tokens.

    The order depends on the documents and the seed, not on the order in which they come; one that is there twice is
    taken once.

    Args:
        documents: The documents.
        tokens: How many tokens are wanted.
        seed: The seed.
        without: Marks of documents that are left out.
    """
    budget = tokens * _CHARACTERS
    kept: dict[str, tuple[str, Document]] = {}
    size = 0
    for document in documents:
        if document.id in kept or not document.marks.isdisjoint(without):
            continue
        order = hashlib.sha256(f"{seed}\0{document.id}".encode()).hexdigest()
        kept[document.id] = (order, document)
        size += document.size
        if size > _HELD * budget:
            kept = _least(kept, budget)
            size = sum(entry.size for _, entry in kept.values())
    return [document for _, document in _least(kept, budget).values()]


def _least(kept: dict[str, tuple[str, Document]], budget: int) -> dict[str, tuple[str, Document]]:
    """Return the first in the drawn order, as many as the budget of characters needs."""
    chosen: dict[str, tuple[str, Document]] = {}
    size = 0
    for name, entry in sorted(kept.items(), key=lambda item: item[1][0]):
        if size >= budget:
            break
        chosen[name] = entry
        size += entry[1].size
    return chosen
