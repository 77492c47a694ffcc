"""How names, numbers and what others wrote are put into Markdown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

NOT_MEASURED = "–"
MINUS = "−"

_LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fi": "Finnish",
    "fr": "French",
    "is": "Icelandic",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "la": "Latin",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nb": "Norwegian Bokmål",
    "nl": "Dutch",
    "nn": "Norwegian Nynorsk",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "se": "Northern Sámi",
    "sv": "Swedish",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "zh": "Chinese",
}
_MARKS = re.compile(r"([\\`*_\[\]|~$])")
_AT_START = re.compile(r"^([#+=-]|\d+(?=[.)]))")


def one_line(text: Any) -> str:
    """Return a text on one line, without characters that are not seen or that turn the direction of others."""
    visible = (" " if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign for sign in str(text))
    return " ".join("".join(sign for sign in visible if unicodedata.category(sign) not in ("Cf", "Cs", "Co")).split())


def plain(text: Any) -> str:
    """Write a text that others wrote so that Markdown shows it as it is, in a sentence or in a cell of a table.

    It is put on one line, and nothing in it is taken for markup or HTML.
    """
    escaped = _MARKS.sub(r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def at_start(markdown: str) -> str:
    """Keep a line that begins with such text from becoming a heading or an item of a list."""
    return _AT_START.sub(lambda match: f"{match[0]}\\" if match[0].isdigit() else f"\\{match[0]}", markdown)


def code(text: Any) -> str:
    """Write a text as inline code, also one with backticks or vertical bars in it."""
    words = one_line(text).replace("|", "\\|")  # a bar ends a cell, even in code
    if not words:
        return NOT_MEASURED
    longest = max((len(run) for run in re.findall(r"`+", words)), default=0)
    fence, blank = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{blank}{words}{blank}{fence}"


def fenced(text: str, language: str) -> str:
    """Write a text as a block of code; no line of it ends the block."""
    longest = max((len(run) for run in re.findall(r"^`+", text, flags=re.MULTILINE)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int | None = None) -> str:
    """Return a Markdown table of cells that are Markdown already.

    Args:
        head: The heads of its columns.
        rows: As many cells each.
        numbers_from: The first of the columns that are aligned right; None for none.
    """
    first = len(head) if numbers_from is None else numbers_from
    rule = ["---" if index < first else "---:" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def language_name(code: str) -> str:
    """Return the English name of a language, or its code; of two, `en-fi`, that the one goes into the other."""
    return " to ".join(_LANGUAGES.get(each, each) for each in code.split("-"))


def number(value: float) -> str:
    """Write a setting in the fewest digits: `0.0003`, `5e-06`, `128`."""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def signed(value: float, decimals: int) -> str:
    """Write a difference with its sign: `+1.2`, `−0.4`, `0.0`."""
    rounded = round(value, decimals) + 0.0
    return f"{'+' if rounded > 0 else MINUS if rounded < 0 else ''}{abs(rounded):.{decimals}f}"


def size(number_of_bytes: int) -> str:
    """Write a size in decimal units: `20.35 GB`, `105.2 MB`."""
    for unit, factor, decimals in (("GB", 10**9, 2), ("MB", 10**6, 1), ("kB", 10**3, 1)):
        if number_of_bytes >= factor:
            return f"{number_of_bytes / factor:.{decimals}f} {unit}"
    return f"{number_of_bytes} B"


def large(value: int) -> str:
    """Write a count in words of thousands: `134.5 million`, `8.03 billion`, `820`."""
    for word, factor, decimals in (("billion", 10**9, 2), ("million", 10**6, 1)):
        if value >= factor:
            return f"{value / factor:.{decimals}f} {word}"
    return f"{value:,}"
