"""Ratings on a scale of five points, read from what a judge wrote: exactly as asked for, or not at all."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_SCORE = 5

# `reason` first: the model writes keys in this order, and is to weigh before it gives a number. An `enum` because
# engines that constrain decoding know it, and some of them ignore `minimum` and `maximum`.
RATING_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "reason": {"type": "string"},
        "score": {"type": "integer", "enum": list(range(MAX_SCORE + 1))},
    },
    "required": ["reason", "score"],
    "additionalProperties": False,
}

_MARKS = r"[ \t\u00a0*_`]*"  # Markdown's emphasis and code, which judges put around all parts of the line
_LABEL = r"(?:(?:final|overall|total) score|score|lopulliset pisteet|(?:kokonais|loppu|yhteis)?pisteet)"
_LABELLED = re.compile(rf"(?<![^\W_]){_LABEL}{_MARKS}:", re.IGNORECASE)
_LINE = re.compile(
    rf"[ \t#>-]*{_MARKS}{_LABEL}{_MARKS}:{_MARKS}([0-9](?:[.,][0-9]+)?){_MARKS}/{_MARKS}{MAX_SCORE}{_MARKS}\.?{_MARKS}",
    re.IGNORECASE,
)
_FRACTION = re.compile(r"[0-9]\s*/\s*[0-9]")


def parse_score(text: str) -> float | None:
    """Return the score of the last line that states one, such as `Score: 4/5`, or None; nothing is guessed.

    The label is `Score` or `Pisteet`, also `Final score`, `Kokonaispisteet` and the like, in any case; the number may
    have decimals, `4.5/5` or `4,5/5`; Markdown's emphasis, headings, quotes and list marks are passed over. That line
    has to hold one score of 0 to 5 out of 5 and nothing else. Where it holds more, as in `Score: 4/5 or 3/5`, or
    another scale, or `N`, an earlier score does not count instead; nor does any where fractions follow the last one.
    """
    lines = text.splitlines()
    last = next((number for number in reversed(range(len(lines))) if _LABELLED.search(lines[number])), None)
    if last is None or _FRACTION.search("\n".join(lines[last + 1 :])):
        return None
    line = _LINE.fullmatch(lines[last])
    if line is None:
        return None
    score = float(line[1].replace(",", "."))
    return score if score <= MAX_SCORE else None


def parse_structured(text: str) -> float | None:
    """Return the score of a JSON object that follows `RATING_SCHEMA`, or None.

    An engine that enforces the schema can write nothing else; what breaks off, has another key, a key twice, a score
    that is no whole number or text around the object is not repaired.
    """
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    # With the hook an object is a list of tuples, and an array never holds one.
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        return None
    rating = dict(pairs)
    if len(pairs) != len(rating) or rating.keys() != {"reason", "score"} or not isinstance(rating["reason"], str):
        return None
    score = rating["score"]
    is_score = isinstance(score, int) and not isinstance(score, bool) and 0 <= score <= MAX_SCORE
    return float(score) if is_score else None
