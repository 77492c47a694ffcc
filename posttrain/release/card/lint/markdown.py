"""A card taken apart: its metadata, headings, tables, blocks of code and sentences."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import Any

_HEAD = re.compile(r"\A---[ \t]*\n(?P<yaml>.*?)\n---[ \t]*(?:\n|\Z)", flags=re.DOTALL)
_FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})(?P<language>[^`]*)$")
_HEADING = re.compile(r"^#{1,6}\s+(?P<text>.*?)\s*#*$")
_LINK = re.compile(r"\[((?:[^\]\\]|\\.)*)\]\(([^)\s]*)[^)]*\)")
_CODE = re.compile(r"(?<![\\`])(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_ESCAPE = re.compile(r"\\([\\`*_\[\]|~$#+=().!-])")


@dataclass(frozen=True)
class Table:
    """A table: the heading it is under, its head, and its rows, as Markdown."""

    section: str
    head: list[str]
    rows: list[list[str]]


@dataclass
class Card:
    """What a card consists of. `sentences` are lines of text, each with the heading it is under; links are targets."""

    metadata: dict[str, Any]
    title: str = ""
    headings: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    code: list[tuple[str, str]] = field(default_factory=list)
    sentences: list[tuple[str, str]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    text: str = ""

    def table(self, *head: str) -> list[Table]:
        """Return the tables whose heads begin with these words."""
        return [table for table in self.tables if [words(cell) for cell in table.head[: len(head)]] == list(head)]


def parse(text: str) -> Card:
    """Take a card apart.

    Raises:
        ValueError: Its metadata is missing, or is no YAML mapping.
    """
    import yaml

    match = _HEAD.match(text)
    if match is None:
        raise ValueError("it does not begin with metadata between two lines of ---")
    try:
        metadata = yaml.safe_load(match["yaml"])
    except yaml.YAMLError as error:
        raise ValueError(f"its metadata is no YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(metadata, dict):
        raise ValueError("its metadata is no mapping of keys to values")
    card = Card(metadata=metadata, text=text[match.end() :])
    _read(card, card.text.splitlines())
    return card


def _read(card: Card, lines: list[str]) -> None:
    section, index = "", 0
    while index < len(lines):
        line = lines[index]
        index += 1
        if fence := _FENCE.match(line):
            end = next((at for at in range(index, len(lines)) if lines[at].strip() == fence["fence"]), len(lines))
            card.code.append((fence["language"].strip(), "\n".join(lines[index:end])))
            index = end + 1
        elif heading := _HEADING.match(line):
            section = words(heading["text"])
            if line.startswith("# ") and not card.title:
                card.title = section
            card.headings.append(section)
        elif line.startswith("|") and index < len(lines) and re.fullmatch(r"\|[\s:|-]+\|", lines[index].strip()):
            end = next((at for at in range(index, len(lines)) if not lines[at].startswith("|")), len(lines))
            card.tables.append(Table(section, _cells(line), [_cells(row) for row in lines[index + 1 : end]]))
            index = end
        elif line.strip():
            card.sentences.append((section, line.strip()))
    card.links = [match[2] for match in _LINK.finditer(card.text)]


def _cells(line: str) -> list[str]:
    """Return the cells of a line of a table; a bar behind a backslash is part of a cell."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))]


def words(markdown: str) -> str:
    """Return what a reader sees of a line: links by their text, code as it is, nothing of the markup."""
    return _seen(markdown, lambda content: content)


def without_code(markdown: str) -> str:
    """Return the same without code and without addresses: identifiers, whose digits are no numbers."""
    return re.sub(r"https?://\S+", " ", _seen(markdown, lambda content: " "))


def _seen(markdown: str, code: Any) -> str:
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(code(match[2].strip().replace("\\|", "|")))
        return f"\0{len(kept) - 1}\0"

    text = _CODE.sub(keep, markdown)
    text = _LINK.sub(lambda match: match[1], text)
    text = re.sub(r"(?<!\\)\*+", "", text)
    text = html.unescape(_ESCAPE.sub(r"\1", text))
    return re.sub(r"\0(\d+)\0", lambda match: kept[int(match[1])], text).strip()


def code_in(markdown: str) -> list[str]:
    """Return the pieces of inline code in a line."""
    return [match[2].strip().replace("\\|", "|") for match in _CODE.finditer(markdown)]
