"""Refusals are found at the opening, in English and Finnish, and ordinary openings are let through."""

from __future__ import annotations

from pathlib import Path

from posttrain.data.rows import Row
from posttrain.data.steps.refusal import Refusal
from posttrain.recipe.schema_data import RefusalFilter
from tests.data.steps.made import pair, reasons, refuses, sft
from tests.data.steps.real import real_rows

STEP = Refusal(RefusalFilter())
REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I can’t assist with that request.",
    "I cannot provide instructions for that.",
    "As an AI language model, I am unable to browse the internet.",
    "Unfortunately, I'm not able to answer that question.",
    "Sorry, I can't do that.",
    "I apologize, but I cannot fulfill this request.",
    "**I must decline** to write this.",
    "“I won't be able to help you with this,” said no one.",
    "I do not feel comfortable writing that.",
    "Olen pahoillani, mutta en voi auttaa sinua tässä.",
    "Valitettavasti en pysty vastaamaan tähän kysymykseen.",
    "En valitettavasti voi antaa lääketieteellisiä neuvoja.",
    "Tekoälymallina en voi kirjoittaa tätä.",
    "Anteeksi, mutta en suostu tekemään sitä.",
    "Minun on kieltäydyttävä pyynnöstäsi.",
]
ANSWERS = [
    "I can't wait to show you: here is the plan.",
    "I can't help but admire the question. It has two parts.",
    "I cannot stress enough how important sleep is.",
    "Sorry for the delay, here is the recipe.",
    "I'm sorry to hear that you are ill. Rest and drink water.",
    "Unfortunately, the castle was destroyed in 1656.",
    "You cannot provide a negative index here.",
    "He said: I can't help you.",
    "As an AI language model, I like this question. The answer is 4.",
    "I am able to help with that.",
    "Valitettavasti linna tuhoutui vuonna 1656.",
    "En voi sanoin kuvailla, miten kaunis järvi oli.",
    "Anteeksi viivästys, tässä on resepti.",
    "Olen pahoillani, että olet sairas. Lepää ja juo vettä.",
    "Voin auttaa sinua.",
    "En tiedä, mutta arvaan.",
]


def test_refusals_are_found_and_answers_are_not() -> None:
    assert refuses(STEP, [*REFUSALS, *ANSWERS]) == REFUSALS


def test_a_refusal_inside_an_answer_is_none() -> None:
    assert refuses(STEP, ["Roolipeli alkaa. I'm sorry, but I can't help with that.", "Vastaus: en voi auttaa."]) == []


def test_phrases_of_the_recipe_are_added() -> None:
    step = Refusal(RefusalFilter(phrases=["no way", "I’d rather dance"]))
    texts = ["No way, that is wrong.", "Sorry, i'd rather dance!", "No wayside inn is open.", REFUSALS[0]]
    assert refuses(step, texts) == [texts[0], texts[1], texts[3]]


def test_the_reason_shows_the_opening_and_a_pair_is_judged_by_its_chosen_answer() -> None:
    rows: list[Row] = [pair("En voi auttaa.", "Voin."), pair("Voin.", "En voi auttaa."), sft("I can't   help\nyou.")]
    assert reasons(STEP, rows) == ["refusal: En voi auttaa", None, "refusal: I can't help"]


def test_hardly_any_real_answer_is_refused(real_data: Path) -> None:
    answers = [row.messages[-1]["content"] for row in real_rows(real_data)]
    assert 0 < len(refuses(STEP, answers)) < 0.002 * len(answers)
