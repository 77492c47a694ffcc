"""Replace personal data by marks of its kind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from posttrain.data.rows import Message, PreferenceRow, Row, content_id, meta_text
from posttrain.data.steps.base import Rejected, Result
from posttrain.data.steps.fences import find_fences
from posttrain.data.steps.pii_patterns import MASKS, may_have_pii
from posttrain.recipe.schema_data import Pii


class MaskPii:
    """Replaces e-mail addresses, phone numbers, Finnish personal identity codes and IBANs by `[EMAIL]` and so on.

    All messages of a row are masked, a pair's rejected answer too. A row that changes gets the id of its new content,
    and its meta a key `pii` with how many of each kind there were. Masking twice is the same as once. A pair whose
    answers differed in such data alone is refused.
    """

    name = "pii"

    def __init__(self, options: Pii) -> None:
        """Take the recipe's options."""
        # In the order of MASKS, whatever the recipe's: digits of an IBAN could be taken for a phone number.
        self._masks = [(kind, mask) for kind, mask in MASKS.items() if kind in options.kinds]
        self._code = options.code

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """Return each row, or a masked copy of it."""
        return [self._mask_row(row) for row in rows]

    def mask(self, text: str, found: Counter[str]) -> str:
        """Return a text with its personal data masked, and add to `found` how many of each kind it had."""
        if not may_have_pii(text):
            return text
        if self._code or not (blocks := find_fences(text).blocks):
            return self._mask_prose(text, found)
        pieces = []
        after = 0
        for start, end in blocks:
            pieces += [self._mask_prose(text[after:start], found), text[start:end]]
            after = end
        return "".join([*pieces, self._mask_prose(text[after:], found)])

    def _mask_prose(self, text: str, found: Counter[str]) -> str:
        before = None
        while text != before:  # a mark can end one thing where another then begins
            before = text
            for kind, mask in self._masks:
                text, count = mask(text, f"[{kind.upper()}]")
                if count:
                    found[kind] += count
        return text

    def _mask_messages(self, messages: Sequence[Message], found: Counter[str]) -> list[Message]:
        return [{**message, "content": self.mask(message["content"], found)} for message in messages]

    def _mask_row(self, row: Row) -> Result:
        found: Counter[str] = Counter()
        if isinstance(row, PreferenceRow):
            parts = {name: self._mask_messages(getattr(row, name), found) for name in ("prompt", "chosen", "rejected")}
            if not found:
                return row
            if [m["content"].strip() for m in parts["chosen"]] == [m["content"].strip() for m in parts["rejected"]]:
                return Rejected("chosen equals rejected: once personal data is masked")
            return replace(
                row,
                id=content_id(parts),
                prompt=parts["prompt"],
                chosen=parts["chosen"],
                rejected=parts["rejected"],
                meta=_with_counts(row.meta, found),
            )
        messages = self._mask_messages(row.messages, found)
        if not found:
            return row
        return replace(row, messages=messages, id=content_id(messages), meta=_with_counts(row.meta, found))


def _with_counts(meta: str, found: Counter[str]) -> str:
    content = json.loads(meta)
    content["pii"] = dict(Counter(content.get("pii") or {}) + found)
    return meta_text(content)
