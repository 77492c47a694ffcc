"""Refuse rows whose answer was cut off."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from posttrain.data.rows import Row
from posttrain.data.steps.base import Rejected, Result, answers
from posttrain.data.steps.fences import find_fences
from posttrain.recipe.schema_data import TruncationFilter

_REASON_KEYS = ("finish_reason", "stop_reason")
_CUT = frozenset({"length", "max_tokens", "max_length", "model_length"})  # as servers and libraries call it
_PROSE = 60  # characters a last line must have to be judged as prose
_NOT_PROSE = re.compile(r"\s*(?:[-*+•#>|]|\d+[.)]|\w+:|https?:)|.*(?:https?://|www\.|[|{}<>=\\@_$]|://)")
# Earlier in the line a sentence has ended and another begun: whoever wrote it ends sentences with a stop.
_NEXT_SENTENCE = re.compile(r"[^\W\d_]{3}[.!?][\"')\]”’]?\s+[\"'(\[“]?[^\W\d_]{2,}")
_STOPPED = re.compile(r"(?:[^\W\d_]|[,;])\Z")


class Truncation:
    """Refuses a row where an answer, of a pair the chosen one, was cut off.

    Three signs, from certain to likely: the row's meta has a `finish_reason` or `stop_reason` that says the limit was
    reached; a fenced code block is left open and the answer has an odd number of fences; or the last line is prose,
    at least 60 characters with a finished sentence in it, and ends in a letter, comma or semicolon. Lists, tables,
    headings, code, links and verse are not judged by their last line.
    """

    name = "truncation"

    def __init__(self, options: TruncationFilter) -> None:
        """Take the recipe's options."""
        self._options = options

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """Return each row or why it is refused."""
        return [self._judge(row) for row in rows]

    def _judge(self, row: Row) -> Result:
        if reason := _said(row.meta):
            return Rejected(f"answer cut off, as the source says: {reason}")
        for answer in answers(row):
            fences = find_fences(answer)
            # An even number is a block that shows a block, where the fences cannot be told apart.
            if fences.unfinished and fences.lines % 2 == 1:
                return Rejected("code fence left open")
            in_code = bool(fences.blocks) and fences.blocks[-1][1] >= len(answer.rstrip())
            if not in_code and len(answer) >= self._options.min_chars and _stops_in_sentence(answer):
                return Rejected(f"stops in mid-sentence: {answer.rstrip()[-40:]}")
        return row


def _said(meta: str) -> str | None:
    """Return why generation stopped, where the meta says that it was at a limit."""
    if not any(key in meta for key in _REASON_KEYS):  # reading JSON is slow
        return None
    content = json.loads(meta)
    for key in _REASON_KEYS:
        value = content.get(key)
        for reason in value if isinstance(value, list) else [value]:
            if isinstance(reason, str) and reason.lower() in _CUT:
                return reason
    return None


def _stops_in_sentence(answer: str) -> bool:
    text = answer.rstrip()
    if not _STOPPED.search(text, len(text) - 1):
        return False
    line = text[text.rfind("\n") + 1 :]
    return len(line) >= _PROSE and not _NOT_PROSE.match(line) and bool(_NEXT_SENTENCE.search(line))
