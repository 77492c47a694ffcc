"""Where sentences end."""

from __future__ import annotations

import random

import pytest

from posttrain.evaluate.ifeval.rules import ENGLISH, FINNISH, LANGUAGES
from posttrain.evaluate.ifeval.sentences import split_sentences
from tests.helpers import TEXT

# `|` stands for the end of a sentence with another after it.
ENGLISH_TEXTS = [
    "One sentence.|Two sentences!|Three?|and a fourth in small letters",
    "Dr. Doe met Mrs. Roe at 5 p.m. on Jan. 3 in St. Paul.|They spoke.",
    "He lives in the U.S. Army barracks, i.e. nowhere.",
    "It cost $3.50, see fig. 2 and example.com.|Version 2.0 is out.",
    "So do I.|And J. R. Doe too.",
    "Wait... what?|Wait...|What?",
    '"Really?" she asked.|"Yes!"|She left (at once.)|He stayed.',
    "It was found.[12]|Nobody knew.",
    "We sold apples, pears, etc. at the market.|And plums etc.|Then we left.",
    "A heading without a stop\n\nA sentence.",
    "1.|First\n2.|Second",  # as in the original
]
FINNISH_TEXTS = [
    "Yksi virke.|Toinen virke!|Kolmas?|ja neljäs pienillä",
    "Tule klo 12.30 tai 6.12.2024 klo 9.00.|Ota mukaan mm. takki, hattu ym. vaatteet.",
    "Esim. prof. Virtanen, ks. s. 5, sanoi ts. kyllä.",
    "Lue 3. luku ja 10. sivu.|Sitten 6. joulukuuta tulee juhla.",
    "Tapaamme 6.12.|Tervetuloa!",
    "Se oli nk. hyvä päivä jne.|Sitten satoi.|Oli n. 5 astetta.",
    "Kustaa II Aadolf ja Kaarle XII. kerran.|Hän oli kuningas.",
    "Rooma perustettiin 753 eKr. ja kaatui 476 jKr.|Se oli suuri.",
    "J. Sibelius ja A. Kivi v. 1870 eli v:n 1870 jälkeen.",
    "”Tuletko?” äiti kysyi.|”En.”|Hän jäi.",
    "Hinta on 3,5 milj. euroa eli 3.500.000 euroa.",
    "1. Ensimmäinen kohta.|2. Toinen kohta.",
    "Ohje:\n1. Ensimmäinen kohta.|2. Toinen kohta.",
    "Ääni kuului...|Älä pelkää… vielä.",
]


@pytest.mark.parametrize("marked", ENGLISH_TEXTS)
def test_english(marked: str) -> None:
    check(marked, "en")


@pytest.mark.parametrize("marked", FINNISH_TEXTS)
def test_finnish(marked: str) -> None:
    check(marked, "fi")


def check(marked: str, language: str) -> None:
    for blank in (" ", "\n", "\n\n"):
        assert split_sentences(marked.replace("|", blank), LANGUAGES[language]) == marked.split("|")


def test_the_languages_differ_in_numbers_with_a_period() -> None:
    assert len(split_sentences("Read 3. Chapter four is long.", ENGLISH)) == 2
    assert len(split_sentences("Lue 3. luku.", FINNISH)) == 1


def test_nothing_is_lost_and_joined_sentences_are_counted_one_by_one() -> None:
    draw = random.Random(7)
    for _ in range(200):
        parts = [draw.choice(TEXT) for _ in range(draw.randint(1, 8))]
        text = draw.choice([" ", "\n", "\n\n"]).join(parts)
        for rules in LANGUAGES.values():
            assert split_sentences(text, rules) == parts
            assert split_sentences(text.lower(), rules) == [part.lower() for part in parts]


def test_a_text_of_signs_has_no_sentence() -> None:
    assert split_sentences("*** ... !", ENGLISH) == []
    assert split_sentences("A 🙂. ! Yes ***", ENGLISH) == ["A 🙂.", "Yes ***"]
