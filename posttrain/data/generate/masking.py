"""What of a text is translated: its lines without markers, and in them marks for what must stay as it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from posttrain.data.steps.fences import find_fences

# Formulas that stand on lines of their own; a longer one is translated rather than searched for any further.
_DISPLAYED = re.compile(
    r"^[ \t]*(?:\$\$.{1,4000}?\$\$|\\\[.{1,4000}?\\\]|\\begin\{(\w{1,20}\*?)\}.{1,4000}?\\end\{\1\})[ \t]*[.,]?[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
# Indentation, quotation, bullets, numbers of a list (`1.`, `a)`), headings and boxes to tick.
_MARKER = re.compile(r"[ \t>]*(?:(?:[-*+•–]|\d{1,9}[.)]|[A-Za-z]\)|[A-H]\.|#{1,6})[ \t]+)*(?:\[[ xX]\][ \t]+)?")
_URL = r"(?:(?:https?|ftp)://|www\.)[^\s<>\"'`()\[\]{}]*[^\s<>\"'`()\[\]{}.,;:!?*_]"
_EMAIL = r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}"
_KEPT = re.compile(
    "|".join(
        (
            r"(?<!`)(?P<ticks>`+)(?!`)[^\n]{1,1000}?(?<!`)(?P=ticks)(?!`)",  # inline code
            rf"(?P<address>{_URL}|{_EMAIL})",
            r"\\\([^\n]{1,400}?\\\)|\\\[[^\n]{1,400}?\\\]|\$\$[^$\n]+\$\$",  # formulas, the next by the rule of Pandoc
            r"\$(?![\s$])[^$\n]{0,199}[^\s$\\]\$(?!\d)",
            r"\$?\{[{%]?[^{}\n]{1,80}[%}]?\}",  # {name}, {{ name }}, ${name}, {% block %}
            r"(?<![\w%])%(?:\d+\$|\(\w+\))?[-+0#]*\d*(?:\.\d+)?(?:l{0,2}[dux]|[sdifgxXeEc])(?![A-Za-z])",  # printf
            r"</?[A-Za-z][^<>\n]{0,200}>|<!--[^\n]{0,1000}?-->",  # tags
            r"\[[A-ZÅÄÖ][A-ZÅÄÖ0-9_ ]*\]",  # [NAME], [EMAIL]
        )
    )
)
# Anything that reads like a mark is a tag, and so masked itself: no text holds a mark of its own.
_MARK = re.compile(r"<x(\d{1,9})\s*/?>", re.IGNORECASE)
_ENDING = re.compile(r":?\w")  # written right after a mark, as Finnish cases are


@dataclass(frozen=True)
class Line:
    """A line of a text: `before` + the body + `after`.

    Attributes:
        before: Indentation and markers, or the whole line where there is nothing to translate.
        body: What is translated, its kept parts marked `<x1/>`, `<x2/>` and so on; empty where there is nothing.
        after: Blanks at the end.
        kept: What each mark stands for, in order.
        addresses: The numbers of the marks that stand for URLs and e-mail addresses.
    """

    before: str
    body: str = ""
    after: str = ""
    kept: tuple[str, ...] = ()
    addresses: frozenset[int] = frozenset()


def lines_of(text: str) -> list[Line]:
    """Return the lines of a text, which joined by newlines are the text again.

    Fenced code, displayed formulas, blank lines and lines without a letter outside of kept parts have no body.
    """
    blocks = [*find_fences(text).blocks, *(match.span() for match in _DISPLAYED.finditer(text))]
    inside: set[int] = set()
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    edges = sorted(blocks)
    place = 0
    for number, start in enumerate(starts):
        while place < len(edges) and edges[place][1] <= start:
            place += 1
        if place < len(edges) and edges[place][0] <= start:
            inside.add(number)
    return [
        Line(before=line) if number in inside or not line.strip() else _line(line)
        for number, line in enumerate(text.split("\n"))
    ]


def _line(text: str) -> Line:
    marker = _MARKER.match(text)
    before = marker[0] if marker else ""
    plain = text[len(before) :].rstrip()
    kept: list[str] = []
    addresses: set[int] = set()

    def mark(match: re.Match[str]) -> str:
        kept.append(match[0])
        if match["address"]:
            addresses.add(len(kept))
        return f"<x{len(kept)}/>"

    body = _KEPT.sub(mark, plain)
    if not any(map(str.isalpha, _MARK.sub("", body))):
        return Line(before=text)
    return Line(before, body, text[len(before) + len(plain) :], tuple(kept), frozenset(addresses))


def fault(line: Line, translation: str) -> str | None:
    """Say what is wrong with the translation of a line's body: a mark that is lost, repeated, invented or bent.

    Returns:
        What the mark stands for, after the kind and a colon; None where each is there once.
    """
    found = Counter(int(number) for number in _MARK.findall(translation))
    for number, kept in enumerate(line.kept, 1):
        if found[number] != 1:
            return f"placeholder {'repeated' if found[number] else 'lost'}: {kept}"
    if invented := sorted(number for number in found if not 1 <= number <= len(line.kept)):
        return f"placeholder invented: <x{invented[0]}/>"
    for match in _MARK.finditer(translation):
        number = int(match[1])
        tail = _ENDING.match(translation, match.end())
        # An ending would become a part of the address.
        if number in line.addresses and tail and not _followed(line.body, number):
            return f"placeholder bent: {line.kept[number - 1]}"
    return None


def _followed(body: str, number: int) -> bool:
    mark = f"<x{number}/>"
    return _ENDING.match(body, body.index(mark) + len(mark)) is not None


def restored(line: Line, translations: Mapping[str, str]) -> str:
    """Return a line with its body's translation, marks replaced by what they stand for."""
    if not line.body:
        return line.before
    body = _MARK.sub(lambda match: line.kept[int(match[1]) - 1], translations[line.body])
    return line.before + body + line.after
