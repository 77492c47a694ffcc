"""An assistant that takes itself for another maker's is found; text about makers and namesakes is let through."""

from __future__ import annotations

import pytest

from posttrain.data.steps.vendor import Vendor
from posttrain.recipe.schema_data import VendorFilter
from tests.data.steps.made import pair, reasons, refuses

STEP = Vendor(VendorFilter())
SELF = [
    "I am ChatGPT, how can I help?",
    "Hi! I’m ChatGPT.",
    "I'm an AI language model called GPT-4.",
    "As an AI developed by OpenAI, I have no body.",
    "As an AI language model trained by OpenAI, I have no opinions.",
    "I was created by Anthropic to be helpful.",
    "I'm Claude, an AI assistant made to help.",
    "I am a large language model, trained by Google.",
    "I was trained by the researchers at Meta AI.",
    "My name is Qwen and I can help.",
    "OpenAI trained me on text.",
    "I am Open Assistant.",
    "Olen ChatGPT, miten voin auttaa?",
    "Olen OpenAI:n kehittämä kielimalli.",
    "Tekoälynä, joka on OpenAI:n kouluttama, en tiedä sitä.",
    "Minut on kehittänyt OpenAI.",
    "Nimeni on Claude ja olen tekoälyavustaja.",
    "Olen Googlen kouluttama suuri kielimalli.",
]
ABOUT = [
    "ChatGPT was developed by OpenAI and released in 2022.",
    "I am a fan of Claude Monet.",
    "I am Claude Monet, a painter from Paris.",
    "My name is Claude and I sell bread in Lyon.",
    "You can use the OpenAI API with a key.",
    "I'm sure ChatGPT was made by OpenAI.",
    "I am an Apple user.",
    "I was in Meta, a village. The house was built by Google Street.",
    "Gemini is a constellation. I am a Gemini.",
    "Google kehitti hakukoneen.",
    "Olen käyttänyt ChatGPT:tä.",
    "OpenAI on kehittänyt ChatGPT:n.",
    "I am an assistant.",
]


def test_self_identification_is_found_and_text_about_makers_is_not() -> None:
    assert refuses(STEP, [*SELF, *ABOUT]) == SELF


@pytest.mark.parametrize("text", [SELF[0], SELF[3], SELF[13]])
def test_it_is_found_anywhere_in_a_long_answer(text: str) -> None:
    filler = "Tämä on pitkä teksti järvistä ja metsistä, eikä siinä ole mitään muuta. " * 40
    assert refuses(STEP, [filler + text + " " + filler, filler]) == [filler + text + " " + filler]


def test_names_of_the_recipe_are_added() -> None:
    step = Vendor(VendorFilter(names=["Kielikone", "Sanapaja Oy"]))
    texts = [
        "I am Kielikone.",
        "I was trained by Sanapaja Oy.",
        "Olen Sanapaja Oy:n kehittämä.",
        "Kielikone is a word.",
    ]
    assert refuses(step, texts) == texts[:3]
    assert refuses(STEP, texts) == []


def test_only_the_chosen_answer_of_a_pair_is_judged() -> None:
    found = reasons(STEP, [pair("Ok.", SELF[0]), pair(SELF[0], "Ok.")])
    assert found == [None, "speaks as another maker's model: I am ChatGPT"]
