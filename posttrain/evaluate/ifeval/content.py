"""Placeholders and postscripts."""

from __future__ import annotations

import re

from posttrain.evaluate.ifeval.base import Verifier, positive, text
from posttrain.evaluate.ifeval.rules import Rules

# The two markers of the English prompts, found anywhere in a line and with blanks inside, as in the original.
_ORIGINAL_POSTSCRIPTS = {
    "P.S.": re.compile(r"p\.\s?s\.", re.IGNORECASE),
    "P.P.S": re.compile(r"p\.\s?p\.\s?s", re.IGNORECASE),
}
_LINE_START = r"^[ \t*_#>]*"  # Markdown's signs of headings, emphasis and quotations too


def number_placeholders(response: str, rules: Rules, *, num_placeholders: int) -> bool:
    """There are at least so many placeholders in square brackets, such as `[address]`."""
    return sum(map(_placeholders, response.split("\n"))) >= num_placeholders


def postscript(response: str, rules: Rules, *, postscript_marker: str) -> bool:
    """There is a postscript with the marker asked for.

    In Finnish (`P.S.`, `P.P.S.`, `JK.`), and for any other marker in English, it opens a line.
    """
    original = _ORIGINAL_POSTSCRIPTS.get(postscript_marker) if rules.language == "en" else None
    return bool((original or _marker(postscript_marker)).search(response))


def _placeholders(line: str) -> int:
    """Return how many there are in a line; not by a pattern, which takes quadratic time on `[[[[`."""
    count, end = 0, -1
    while (start := line.find("[", end + 1)) >= 0 and (end := line.find("]", start)) >= 0:
        count += 1
    return count


def _marker(marker: str) -> re.Pattern[str]:
    """Return the pattern of a marker that opens a line; after each of its periods there may be a blank."""
    literal = re.escape(marker).replace(r"\.", r"\.\s?").removesuffix(r"\s?")
    end = r"(?!\w)" if marker[-1].isalnum() else ""
    return re.compile(f"{_LINE_START}{literal}{end}", re.IGNORECASE | re.MULTILINE)


VERIFIERS = {
    "detectable_content:number_placeholders": Verifier(number_placeholders, {"num_placeholders": positive}),
    "detectable_content:postscript": Verifier(postscript, {"postscript_marker": text}),
}
