"""Where fenced code blocks begin and end in Markdown, by the rules of CommonMark 0.31, section 4.5."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A fence may stand in a list item or a quotation; the text after backticks may hold no backtick, or it is inline code.
_FENCE = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?(`{3,}(?=[^`\n]*$)|~{3,})([^\n]*)$", re.MULTILINE)


@dataclass(frozen=True)
class Fences:
    """The fenced blocks of a text.

    Attributes:
        blocks: Start and end of each block in characters, with its fences; one left open reaches to the end.
        lines: How many lines are fences or look like one.
        unfinished: The last block is left open, and something stands on or after the line that opens it.
    """

    blocks: tuple[tuple[int, int], ...] = ()
    lines: int = 0
    unfinished: bool = False

    def outside(self, length: int) -> list[tuple[int, int]]:
        """Return start and end of each stretch of a text of `length` characters that is not in a block."""
        if not self.blocks:
            return [(0, length)] if length else []
        edges = [0, *(edge for block in self.blocks for edge in block), length]
        return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]


_NO_FENCES = Fences()


def find_fences(text: str) -> Fences:
    """Find the fenced code blocks of a text."""
    if "```" not in text and "~~~" not in text:
        return _NO_FENCES
    blocks: list[tuple[int, int]] = []
    opened: re.Match[str] | None = None
    lines = 0
    for match in _FENCE.finditer(text):
        lines += 1
        fence, info = match[1], match[2]
        if opened is None:
            opened = match
        elif fence.startswith(opened[1]) and not info.strip():
            blocks.append((opened.start(), match.end()))
            opened = None
    if opened is None:
        return Fences(tuple(blocks), lines)
    blocks.append((opened.start(), len(text)))
    return Fences(tuple(blocks), lines, bool(text[opened.end(1) :].strip()))
