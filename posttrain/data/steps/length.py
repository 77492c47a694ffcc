"""Refuse rows that are too short or too long, in characters or in tokens."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.data.rows import PreferenceRow, Row
from posttrain.data.steps.base import Rejected, Result, answers, user_texts
from posttrain.data.steps.token_bounds import TokenBounds
from posttrain.errors import UserError
from posttrain.recipe.schema_data import LengthFilter

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Length:
    """Refuses a row outside the recipe's lengths.

    Prompt: the characters of all user turns. Response: those of all assistant turns; of a pair the chosen answer, and
    no answer of a pair may exceed `max_response`. Tokens: those of every message, each encoded by itself without
    special tokens, and of a pair the prompt with the longer of its answers, which is what has to fit when it is
    trained on.
    """

    name = "length"

    def __init__(self, options: LengthFilter, tokenizer_file: Path | None = None) -> None:
        """Take the recipe's options and the run's `tokenizer.json`, read only where there is a bound on tokens.

        Raises:
            UserError: There is a bound on tokens and no such file, or it is damaged.
        """
        self._options = options
        self._tokenizer: Tokenizer | None = None
        if options.max_tokens is not None:
            if tokenizer_file is None:
                raise UserError(
                    "data.filters.length.max_tokens: there is no tokenizer.json to count tokens with; use a "
                    "model that has one, or leave the key out"
                )
            self._tokenizer = _load(tokenizer_file)
            self._bounds = TokenBounds.of(tokenizer_file)

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """Return each row or why it is refused."""
        results: list[Result] = [self._judge(row) for row in rows]
        limit = self._options.max_tokens
        if limit is None:
            return results
        uncertain: list[tuple[int, list[list[str]]]] = []
        for place, result in enumerate(results):
            if isinstance(result, Rejected):
                continue
            texts = _conversations(result)
            if self._bounds.certainly_within(texts, limit):
                continue
            if self._bounds.certainly_beyond(texts, limit):
                results[place] = _too_many(limit)
            else:
                uncertain.append((place, texts))
        for (place, _), tokens in zip(uncertain, self._count([texts for _, texts in uncertain]), strict=True):
            if tokens > limit:
                results[place] = _too_many(limit)
        return results

    def _judge(self, row: Row) -> Result:
        options = self._options
        if options.min_prompt is not None or options.max_prompt is not None:
            prompt = sum(map(len, user_texts(row)))
            if options.min_prompt is not None and prompt < options.min_prompt:
                return Rejected(f"prompt shorter than min_prompt: {prompt} characters")
            if options.max_prompt is not None and prompt > options.max_prompt:
                return Rejected(f"prompt longer than max_prompt: {prompt} characters")
        if options.min_response is None and options.max_response is None:
            return row
        response = sum(map(len, answers(row)))
        if options.min_response is not None and response < options.min_response:
            return Rejected(f"response shorter than min_response: {response} characters")
        if isinstance(row, PreferenceRow):
            response = max(response, sum(len(message["content"]) for message in row.rejected))
        if options.max_response is not None and response > options.max_response:
            return Rejected(f"response longer than max_response: {response} characters")
        return row

    def _count(self, rows: Sequence[Sequence[Sequence[str]]]) -> list[int]:
        """Return the tokens of the longest conversation of each row, all texts encoded in one call."""
        assert self._tokenizer is not None
        texts = [text for conversations in rows for texts in conversations for text in texts]
        if not texts:
            return []
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ends = list(accumulate((len(encoding) for encoding in encodings), initial=0))
        counts = []
        place = 0
        for conversations in rows:
            longest = 0
            for conversation in conversations:
                longest = max(longest, ends[place + len(conversation)] - ends[place])
                place += len(conversation)
            counts.append(longest)
        return counts


def _too_many(limit: int) -> Rejected:
    # Without the number, which would have to be counted where it is certain to be too large.
    return Rejected(f"conversation longer than max_tokens: {limit} tokens")


def _conversations(row: Row) -> list[list[str]]:
    """Return the texts that are trained on together: of a pair two conversations."""
    if isinstance(row, PreferenceRow):
        return [[message["content"] for message in [*row.prompt, *answer]] for answer in (row.chosen, row.rejected)]
    return [[message["content"] for message in row.messages]]


def _load(tokenizer_file: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    if multiprocessing.parent_process() is not None:
        # The processes share the cores already; and threads of the tokenizer do not survive a fork.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # the library raises nothing more precise
        raise UserError(
            f"{tokenizer_file}: is no tokenizer that can be read ({error}); fetch the model again"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
