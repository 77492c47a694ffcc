"""Words, keywords and words in capitals."""

from __future__ import annotations

import pytest

from posttrain.evaluate.ifeval.rules import ENGLISH, FINNISH
from posttrain.evaluate.ifeval.text import count_capital_words, count_words, keyword_pattern


@pytest.mark.parametrize(
    ("text", "english", "finnish"),
    [
        ("Yksi, kaksi: kolme!", 3, 3),
        ("linja-auto vaa'an vaa’an EU:n", 8, 4),
        ("3,5 ja 12.30 ja 1.000.000", 9, 5),
        ("- kohta –", 1, 1),
        ("snake_case", 1, 1),
        ("", 0, 0),
    ],
)
def test_words(text: str, english: int, finnish: int) -> None:
    assert count_words(text, ENGLISH) == english
    assert count_words(text, FINNISH) == finnish


@pytest.mark.parametrize(
    ("text", "english", "finnish"),
    [
        ("NASA, WHO! (EU) **YES** it's [ÄÄNI]", 5, 5),
        ("RED-HOT 3D A4 2024", 3, 3),
        ("DON'T I'm IT’S", 5, 2),
        ("CANNOT GONNA", 4, 2),
        ("EU:n EU:N", 3, 1),
        ("YES--NO...OK", 3, 3),
        ("Kissa ja koira", 0, 0),
    ],
)
def test_words_in_capitals(text: str, english: int, finnish: int) -> None:
    assert count_capital_words(text, ENGLISH) == english
    assert count_capital_words(text, FINNISH) == finnish


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Talo on iso.", True),
        ("ISO (TALO)", True),
        ("Hän asuu talossa.", False),
        ("kerrostalo", False),
        ("puu-talo", False),
        ("talo-yhtiö", False),
        ("TALO:n", False),
        ("talo: iso", True),
        ("talo - iso", True),
    ],
)
def test_a_finnish_keyword_is_a_word_by_itself_in_the_form_given(text: str, found: bool) -> None:
    pattern = keyword_pattern("talo", whole_word=True, joiners=FINNISH.joiners)
    assert bool(pattern.search(text)) is found
