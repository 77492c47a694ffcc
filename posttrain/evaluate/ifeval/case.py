"""Capital and small letters.

`english_capital` and `english_lowercase` keep their names in Finnish prompts, and demand Finnish there.
"""

from __future__ import annotations

from posttrain.evaluate.ifeval.base import Verifier, compare, positive, relation
from posttrain.evaluate.ifeval.language import is_in_language
from posttrain.evaluate.ifeval.rules import Rules
from posttrain.evaluate.ifeval.text import count_capital_words


def capital_word_frequency(response: str, rules: Rules, *, capital_frequency: int, capital_relation: str) -> bool:
    """There are fewer words all in capitals than a number, or at least as many."""
    return compare(count_capital_words(response, rules), capital_relation, capital_frequency)


def english_capital(response: str, rules: Rules) -> bool:
    """The response is in the prompt's language and has no small letter."""
    return response.isupper() and is_in_language(response, rules.language)


def english_lowercase(response: str, rules: Rules) -> bool:
    """The response is in the prompt's language and has no capital."""
    return response.islower() and is_in_language(response, rules.language)


VERIFIERS = {
    "change_case:capital_word_frequency": Verifier(
        capital_word_frequency, {"capital_frequency": positive, "capital_relation": relation}
    ),
    "change_case:english_capital": Verifier(english_capital, {}, needs_language=True),
    "change_case:english_lowercase": Verifier(english_lowercase, {}, needs_language=True),
}
