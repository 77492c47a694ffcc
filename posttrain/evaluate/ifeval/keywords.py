"""Keywords and letters.

An English keyword is found inside other words too, and in any case: `art` is in `Party`. A forbidden word is not. Both
are as in the original. A Finnish keyword is a word by itself, in exactly the form that the prompt gives: `talo` is not
in `talossa` and `kerrostalo`, nor `EU` in `EU:n`. To match inflected forms takes a morphological analyser, whose
version would then be part of the metric. So a Finnish prompt should ask for a word in that very form.
"""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.evaluate.ifeval.base import Verifier, character, compare, positive, relation, text, texts
from posttrain.evaluate.ifeval.rules import Rules
from posttrain.evaluate.ifeval.text import keyword_pattern


def existence(response: str, rules: Rules, *, keywords: Sequence[str]) -> bool:
    """Every keyword occurs."""
    return all(_occurrences(keyword, response, rules) for keyword in keywords)


def frequency(response: str, rules: Rules, *, keyword: str, frequency: int, relation: str) -> bool:
    """A keyword occurs fewer times than a number, or at least as often."""
    return compare(_occurrences(keyword, response, rules), relation, frequency)


def forbidden_words(response: str, rules: Rules, *, forbidden_words: Sequence[str]) -> bool:
    """None of some words occurs, as a word by itself."""
    return not any(
        keyword_pattern(word, whole_word=True, joiners=rules.joiners).search(response) for word in forbidden_words
    )


def letter_frequency(response: str, rules: Rules, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """A character, small or capital, occurs fewer times than a number, or at least as often."""
    return compare(response.lower().count(letter.lower()), let_relation, let_frequency)


def _occurrences(keyword: str, response: str, rules: Rules) -> int:
    return len(keyword_pattern(keyword, whole_word=rules.whole_words, joiners=rules.joiners).findall(response))


VERIFIERS = {
    "keywords:existence": Verifier(existence, {"keywords": texts}),
    "keywords:frequency": Verifier(frequency, {"keyword": text, "frequency": positive, "relation": relation}),
    "keywords:forbidden_words": Verifier(forbidden_words, {"forbidden_words": texts}),
    "keywords:letter_frequency": Verifier(
        letter_frequency, {"letter": character, "let_frequency": positive, "let_relation": relation}
    ),
}
