"""Ratings on a scale of points, read from what a judge wrote: exactly as asked for, or not at all."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

MAX_SCORE = 5


def reasoned(key: str, value: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an object with a `reason` and then a verdict under another key.

    `reason` first: the model writes keys in this order, and is to weigh before it gives a verdict.
    """
    return {
        "type": "object",
        "properties": {"reason": {"type": "string"}, key: value},
        "required": ["reason", key],
        "additionalProperties": False,
    }


def rating_schema(lowest: int, highest: int) -> dict[str, Any]:
    """Return the JSON schema of a whole number of points with its reason.

    An `enum` because engines that constrain decoding know it, and some of them ignore `minimum` and `maximum`.
    """
    return reasoned("score", {"type": "integer", "enum": list(range(lowest, highest + 1))})


RATING_SCHEMA = rating_schema(0, MAX_SCORE)

_MARKS = r"[ \t\u00a0*_`]*"  # Markdown's emphasis and code, which judges put around all parts of the line
_LABEL = r"(?:(?:final|overall|total) score|score|lopulliset pisteet|(?:kokonais|loppu|yhteis)?pisteet)"
_LABELLED = re.compile(rf"(?<![^\W_]){_LABEL}{_MARKS}:", re.IGNORECASE)
_FRACTION = re.compile(r"[0-9]\s*/\s*[0-9]")


def parse_score(text: str, lowest: int = 0, highest: int = MAX_SCORE) -> float | None:
    """Return the score of the last line that states one, such as `Score: 4/5`, or None; nothing is guessed.

    The label is `Score` or `Pisteet`, also `Final score`, `Kokonaispisteet` and the like, in any case; the number may
    have decimals, `4.5/5` or `4,5/5`; Markdown's emphasis, headings, quotes and list marks are passed over. That line
    has to hold one score of `lowest` to `highest` out of `highest` and nothing else. Where it holds more, as in
    `Score: 4/5 or 3/5`, or another scale, or `N`, an earlier score does not count instead; nor does any where fractions
    follow the last one.
    """
    lines = text.splitlines()
    last = next((number for number in reversed(range(len(lines))) if _LABELLED.search(lines[number])), None)
    if last is None or _FRACTION.search("\n".join(lines[last + 1 :])):
        return None
    line = _line(highest).fullmatch(lines[last])
    if line is None:
        return None
    score = float(line[1].replace(",", "."))
    return score if lowest <= score <= highest else None


def parse_structured(text: str, lowest: int = 0, highest: int = MAX_SCORE) -> float | None:
    """Return the score of a JSON object that follows `rating_schema` of the same bounds, or None."""
    score = parse_reasoned(text, "score")
    is_score = isinstance(score, int) and not isinstance(score, bool) and lowest <= score <= highest
    return float(score) if is_score else None


def parse_reasoned(text: str, key: str) -> Any:
    """Return what a JSON object that follows `reasoned` holds under a key, whatever it is, or None.

    An engine that enforces the schema can write nothing else; what breaks off, has another key, a key twice, or text
    around the object is not repaired.
    """
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    # With the hook an object is a list of tuples, and an array never holds one.
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        return None
    found = dict(pairs)
    if len(pairs) != len(found) or found.keys() != {"reason", key} or not isinstance(found["reason"], str):
        return None
    return found[key]


@cache
def _line(highest: int) -> re.Pattern[str]:
    number = rf"([0-9]{{1,{len(str(highest))}}}(?:[.,][0-9]+)?)"
    return re.compile(
        rf"[ \t#>-]*{_MARKS}{_LABEL}{_MARKS}:{_MARKS}{number}{_MARKS}/{_MARKS}{highest}{_MARKS}\.?{_MARKS}",
        re.IGNORECASE,
    )
