"""How many sentences, words and paragraphs."""

from __future__ import annotations

import re

from posttrain.evaluate.ifeval.base import Verifier, compare, positive, relation, word
from posttrain.evaluate.ifeval.rules import Rules
from posttrain.evaluate.ifeval.sentences import split_sentences
from posttrain.evaluate.ifeval.text import count_words

_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_AFTER_FIRST_WORD = re.compile(r"[.,?!'\"]")


def number_sentences(response: str, rules: Rules, *, relation: str, num_sentences: int) -> bool:
    """There are fewer sentences than a number, or at least as many."""
    return compare(len(split_sentences(response, rules)), relation, num_sentences)


def number_words(response: str, rules: Rules, *, relation: str, num_words: int) -> bool:
    """There are fewer words than a number, or at least as many."""
    return compare(count_words(response, rules), relation, num_words)


def number_paragraphs(response: str, rules: Rules, *, num_paragraphs: int) -> bool:
    """There are exactly so many paragraphs, parted by `***`; only the first and the last may be blank, not counted."""
    paragraphs = [paragraph.strip() for paragraph in _DIVIDER.split(response)]
    if not all(paragraphs[1:-1]):
        return False
    return sum(map(bool, paragraphs)) == num_paragraphs


def nth_paragraph_first_word(
    response: str, rules: Rules, *, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    """There are exactly so many paragraphs, parted by two line breaks, and one of them begins with a word.

    Blank paragraphs do not add to the number, yet are there when paragraphs are numbered, as in the original.
    """
    paragraphs = [paragraph.strip() for paragraph in response.split("\n\n")]
    if sum(map(bool, paragraphs)) != num_paragraphs or not paragraphs[nth_paragraph - 1]:
        return False
    found = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    if rules.language == "fi":
        found = re.sub(r"^\W+", "", found)
        return (re.match(rf"\w+(?:[{re.escape(rules.joiners)}]\w+)*", found) or [""])[0].lower() == first_word.lower()
    return _AFTER_FIRST_WORD.split(found, maxsplit=1)[0].lower() == first_word.lower()


VERIFIERS = {
    "length_constraints:number_sentences": Verifier(
        number_sentences, {"relation": relation, "num_sentences": positive}
    ),
    "length_constraints:number_words": Verifier(number_words, {"relation": relation, "num_words": positive}),
    "length_constraints:number_paragraphs": Verifier(number_paragraphs, {"num_paragraphs": positive}),
    "length_constraints:nth_paragraph_first_word": Verifier(
        nth_paragraph_first_word, {"num_paragraphs": positive, "nth_paragraph": positive, "first_word": word}
    ),
}
