"""Refuse rows whose answer opens with a refusal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from posttrain.data.rows import Row
from posttrain.data.steps.base import Rejected, Result, answers
from posttrain.data.steps.phrases import any_of, phrases, plain_apostrophes
from posttrain.recipe.schema_data import RefusalFilter

_OPENING = 400  # characters in which a refusal with all its lead-ins has room
_SHOWN = 60
_BEFORE = r"[\s\"'“”«»*_#>]*"  # quotation marks and Markdown before the first word
_BETWEEN = r"[\s,.;:!–—-]*"


class Refusal:
    """Refuses a row where an answer, of a pair the chosen one, begins with a refusal in English or Finnish.

    An answer refuses where, after lead-ins such as `I'm sorry, but` or `Valitettavasti`, it says that it cannot or
    will not do one of the things an assistant is asked for, or begins with a phrase that is a refusal by itself. The
    words are in `data/phrases/refusal.yaml`. A lead-in alone is none: `Sorry for the delay, here it is`.
    """

    name = "refusal"

    def __init__(self, options: RefusalFilter) -> None:
        """Take the recipe's options; its phrases refuse by themselves, with or without lead-ins."""
        words = list(phrases("refusal").values())
        lead_ins = any_of(lead for language in words for lead in language["lead_ins"])
        own = [plain_apostrophes(phrase) for phrase in options.phrases if phrase.strip()]
        whole = any_of([*own, *(phrase for language in words for phrase in language["whole"])])
        # An alternative a language, so that no sentence is half in one and half in the other.
        cannot = [
            rf"{any_of(language['cannot'])}\s+(?!{any_of(language['unless'])}\b)(?:{any_of(language['between'])}\s+){{0,2}}"
            rf"{any_of(language['do'])}(?!\w)"
            for language in words
        ]
        self._find = re.compile(
            rf"{_BEFORE}(?:{lead_ins}(?!\w){_BETWEEN}){{0,3}}(?:{whole}(?!\w)|{'|'.join(cannot)})", re.IGNORECASE
        )

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """Return each row or why it is refused."""
        return [self._judge(row) for row in rows]

    def _judge(self, row: Row) -> Result:
        for answer in answers(row):
            opening = plain_apostrophes(answer[:_OPENING])
            if found := self._find.match(opening):
                shown = " ".join(found[0].split())
                return Rejected(f"refusal: {shown[:_SHOWN]}")
        return row
