"""Refuse rows whose answer repeats itself, as a model caught in a loop does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from posttrain.data.duplicates import is_latin
from posttrain.data.rows import Row
from posttrain.data.steps.base import Rejected, Result, answers
from posttrain.recipe.schema_data import RepetitionFilter

_LONG_WORD = 100  # characters; no word is as long, a loop without blanks is
_LINES = 10
_LINE = 20  # characters; shorter lines, such as brackets in code, may recur
_NUMBERING = "0123456789.-*•+#>:()[] \t"

# Scripts written without blanks between words: there a character counts as a word. Thai to Myanmar, Khmer, kana, Han.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_HAS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


class Repetition:
    """Refuses a row where an answer, of a pair the chosen one, repeats itself.

    The measure is the share of an answer's word n-grams that have occurred before in it (the "duplicate n-grams" of
    Rae et al. 2021, arXiv:2112.11446, table A1, counted in n-grams). Words are what blanks separate; in scripts
    without blanks, and in a run of more than 100 characters without one, each character counts as a word. A list that
    repeats one item under running numbers escapes n-grams, so of ten lines and more the same bound holds for the
    share of characters in lines that have occurred before, numbering and lines of fewer than 20 characters left out.
    """

    name = "repetition"

    def __init__(self, options: RepetitionFilter) -> None:
        """Take the recipe's options."""
        self._options = options

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """Return each row or why it is refused."""
        return [self._judge(row) for row in rows]

    def _judge(self, row: Row) -> Result:
        for answer in answers(row):
            words = _words(answer)
            if len(words) < self._options.min_words:
                continue
            share = repeated_share(words, self._options.ngram, self._options.max_share)
            if share > self._options.max_share:
                return Rejected(f"answer repeats itself: {share:.0%} of its {self._options.ngram}-grams")
            share = _repeated_lines(answer)
            if share > self._options.max_share:
                return Rejected(f"answer repeats lines: {share:.0%} of its characters")
        return row


def repeated_share(words: Sequence[str], ngram: int, ignore: float = 0.0) -> float:
    """Return the share of n-grams that have occurred before, or 0 where it is certain not to exceed `ignore`."""
    grams = len(words) - ngram + 1
    if grams < 1:
        return 0.0
    # Where an n-gram recurs so does the pair it begins with, so repeated pairs bound repeated n-grams; and pairs are
    # several times faster to count.
    if ngram > 2 and grams - len(set(pairwise(words[: grams + 1]))) <= ignore * grams:
        return 0.0
    distinct = len(set(zip(*(words[shift : shift + grams] for shift in range(ngram)), strict=True)))
    return (grams - distinct) / grams


def _words(text: str) -> list[str]:
    words = text.split()
    unspaced = not is_latin(text) and _HAS_UNSPACED.search(text) is not None
    if not unspaced and max(map(len, words), default=0) <= _LONG_WORD:
        return words
    units: list[str] = []
    for unit in _UNIT.findall(text):
        units.extend(unit if len(unit) > _LONG_WORD else [unit])
    return units


def _repeated_lines(text: str) -> float:
    lines = text.split("\n")
    if len(lines) < _LINES:
        return 0.0
    long = [line for line in (line.lstrip(_NUMBERING).rstrip() for line in lines) if len(line) >= _LINE]
    if len(long) == len(distinct := set(long)):
        return 0.0
    return (sum(map(len, long)) - sum(map(len, distinct))) / len(text)
