"""Refuse rows that have a chat template's own tokens written out in their text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from posttrain.data.rows import Message, PreferenceRow, Row
from posttrain.data.steps.base import Rejected, Result, conversation
from posttrain.data.steps.phrases import phrases
from posttrain.recipe.schema_data import MarkupFilter

_PIPED = r"<\|[^\W_][\w▁]{1,39}\|>"  # <|name|>, the form of most families, those to come included


class Markup:
    """Refuses a row where any message, of a pair either answer too, holds a token of a chat template.

    Such text is a scar of the data's making, or teaches the model to write turns of its own. Known are the tokens of
    the common families, `data/phrases/markup.yaml`, and anything of the form `<|name|>`. Tokens that are also HTML or
    ordinary notation, such as `<s>` and `<filename>`, count only where the tokenizer has them as special tokens,
    because it would make the token of the text, in code as well, or where the recipe names them.
    """

    name = "markup"

    def __init__(self, options: MarkupFilter, tokenizer_file: Path | None = None) -> None:
        """Take the recipe's options and the run's `tokenizer.json`, where there is one."""
        tokens = {*phrases("markup")["tokens"], *options.special_tokens}
        if tokenizer_file is not None:
            tokens |= _special_tokens(tokenizer_file)
        tokens = {token for token in tokens if token}
        self._starts = sorted({token[0] for token in tokens} | {"<"})
        self._find = _pattern(tokens)

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """Return each row or why it is refused."""
        return [self._judge(row) for row in rows]

    def _judge(self, row: Row) -> Result:
        for message in _messages(row):
            text = message["content"]
            # Most texts have none of the signs with which a token can begin: much faster to find than the tokens.
            if any(start in text for start in self._starts) and (found := self._find.search(text)):
                return Rejected(f"chat markup in the text: {found[0]}")
        return row


def _messages(row: Row) -> list[Message]:
    return [*conversation(row), *row.rejected] if isinstance(row, PreferenceRow) else row.messages


def _pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=lambda token: (-len(token), token))
    return re.compile("|".join([*map(re.escape, longest_first), _PIPED]))


def _special_tokens(tokenizer_file: Path) -> set[str]:
    added = json.loads(tokenizer_file.read_text("utf-8")).get("added_tokens") or []
    return {token["content"] for token in added if token.get("special")}
