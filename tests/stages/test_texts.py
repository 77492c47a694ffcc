"""The stage that makes blocks of texts with shares: when there is one, and what it is made anew for."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

from posttrain.recipe.schema import Cpt, Model, NewModel, Recipe, TextSource
from posttrain.stages import chain
from posttrain.stages.fingerprint import fingerprint

TEXTS = [TextSource(path="org/fi", share=0.6), TextSource(path="org/en", share=0.4)]
CPT = Cpt(text=TEXTS, tokens=1e9)
RECIPE = Recipe(name="x", model=Model(base="org/model"), cpt=CPT)


def fingerprints(of: Recipe) -> dict[str, str]:
    found: dict[str, str] = {}
    for stage in chain(of):
        found[stage.name] = fingerprint(stage, dataclasses.asdict(of), found, {}).value
    return found


def test_texts_with_shares_are_tokenised_first() -> None:
    stages = [(stage.name, stage.folder, stage.inputs) for stage in chain(RECIPE)]
    assert stages == [("tokenize-cpt", "tokens-cpt", ()), ("cpt", "base", ("tokenize-cpt",))]
    plain = replace(RECIPE, cpt=replace(CPT, text=[TextSource(path="org/fi")]))
    assert [(stage.name, stage.inputs) for stage in chain(plain)] == [("cpt", ())]
    first = chain(RECIPE)[0]
    assert first.resumes
    assert first.keeps  # also when the stream of a dataset breaks off, which is an error of the user's to look at
    assert not first.trains


@pytest.mark.parametrize(
    ("changes", "anew"),
    [
        ({"learning_rate": 1.0}, {"cpt"}),
        ({"max_length": 8}, {"tokenize-cpt", "cpt"}),
        ({"tokens": 2e9}, {"tokenize-cpt", "cpt"}),
        ({"text": [replace(TEXTS[0], share=0.61), TEXTS[1]]}, {"tokenize-cpt", "cpt"}),
        ({"text": [replace(TEXTS[0], repeat=False), TEXTS[1]]}, {"tokenize-cpt", "cpt"}),
        ({"text": [replace(TEXTS[0], config="fi"), TEXTS[1]]}, {"tokenize-cpt", "cpt"}),
        ({"save_steps": 7}, set()),
    ],
)
def test_what_a_change_makes_anew(changes: dict[str, Any], anew: set[str]) -> None:
    before, after = fingerprints(RECIPE), fingerprints(replace(RECIPE, cpt=replace(CPT, **changes)))
    assert {name for name in before if before[name] != after[name]} == anew


def test_what_is_said_of_a_text_does_not_make_its_tokens_anew() -> None:
    told = replace(RECIPE, cpt=replace(CPT, text=[replace(TEXTS[0], language="fi", license="MIT"), TEXTS[1]]))
    assert fingerprints(told)["tokenize-cpt"] == fingerprints(RECIPE)["tokenize-cpt"]


def test_of_a_new_model_the_vocabulary_counts_and_not_its_size() -> None:
    new = replace(RECIPE, model=Model(new=NewModel(), chat_template="plain"))

    def changed(**keys: Any) -> bool:
        other = replace(new, model=replace(new.model, new=NewModel(**keys)))
        return fingerprints(new)["tokenize-cpt"] != fingerprints(other)["tokenize-cpt"]

    assert changed(vocab_size=999)
    assert not changed(hidden_size=96)
