"""The quantize stage: what it is built from, what determines it, and what is wrong with a recipe beforehand."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest

from posttrain.errors import UserError
from posttrain.recipe import LoadedRecipe, load
from posttrain.recipe.smoke import smoke
from posttrain.stages import quantize
from posttrain.stages.graph import Stage, chain
from posttrain.stages.quantize import quantize_problems


def stage(loaded: LoadedRecipe) -> Stage:
    (found,) = (each for each in chain(loaded.recipe) if each.name == "quantize")
    return found


def tiny(*overrides: str) -> LoadedRecipe:
    return load("tiny-quantized", overrides)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the extra for installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("overrides", "inputs"),
    [
        ([], ("data", "dpo")),
        (["quantize.of=sft"], ("data", "sft")),
        (["quantize.of=base"], ("data", "cpt")),
        (["quantize.calibration.path=builtin:samples/messages.jsonl"], ("data", "dpo")),  # for the held-out rows
        (
            ["quantize.calibration.path=builtin:samples/messages.jsonl", "quantize.heldout.path=builtin:text/en.txt"],
            ("dpo",),
        ),
        (["dpo=null"], ("data", "sft")),
    ],
)
def test_it_is_built_from_the_last_checkpoint_or_the_one_named(
    overrides: Sequence[str], inputs: tuple[str, ...]
) -> None:
    loaded = tiny(*overrides)
    assert stage(loaded).inputs == inputs
    assert [each.name for each in chain(loaded.recipe)][-1] in ("quantize", "eval", "release")


def test_the_base_alone_is_quantised_and_its_name_counts() -> None:
    loaded = load("quantize-causallm-7b")
    assert [each.name for each in chain(loaded.recipe)] == ["quantize"]
    part = stage(loaded).part(loaded.resolved())
    assert part["model"]["base"] == "CausalLM/7B"
    assert part["model"]["chat_template"] == "chatml"
    assert "base" not in stage(tiny()).part(tiny().resolved())["model"]
    assert part["quantize"]["variants"][0]["group_size"] == 128


def test_the_references_matrices() -> None:
    for name, default, others in (
        ("quantize-poro-34b", (4, -1), {(4, 128), (4, 32), (3, 128), (3, 32), (8, -1), (8, 128)}),
        ("quantize-causallm-7b", (4, 128), {(4, 32), (4, 64), (8, -1), (8, 32), (8, 128)}),
    ):
        settings = load(name).recipe.quantize
        assert settings is not None
        by_name = {each.name: (each.bits, each.group_size) for each in settings.variants}
        assert settings.default is not None
        assert by_name.pop(settings.default) == default
        assert set(by_name.values()) == others
        assert all(each.desc_act and each.damp_percent == 0.1 for each in settings.variants)
    poro = load("quantize-poro-34b").recipe.quantize
    assert poro is not None
    assert poro.calibration.length == 2048


def test_smoke_takes_the_default_variant_and_sample_rows() -> None:
    made = smoke(load("quantize-poro-34b"))
    settings = made.loaded.recipe.quantize
    assert settings is not None
    assert [each.name for each in settings.variants] == ["gptq-4bit--1g-actorder_True"]
    assert settings.calibration.path is not None
    assert settings.calibration.path.startswith("builtin:")
    assert made.base == "LumiOpen/Poro-34B"
    assert "quantize: one variant of 7, the default" in made.notes
    own = smoke(tiny()).loaded.recipe.quantize
    assert own is not None
    assert own.calibration.path is None  # the recipe's own rows stay so


def test_what_is_wrong_is_said_before_anything_is_built(installed: None) -> None:
    def problems(*overrides: str) -> list[str]:
        return [text.partition(":")[0] for text in quantize_problems(tiny(*overrides).recipe, 1)]

    assert problems() == []
    assert problems("quantize.variants=[]") == ["quantize.variants"]
    assert problems("quantize.variants=[{bits: 4}, {bits: 4, damp_percent: 0.2}]") == ["quantize.variants"]
    assert problems("quantize.default=gptq-3bit-64g-actorder_True") == ["quantize.default"]
    assert problems("quantize.of=instruct", "dpo=null") == ["quantize.of"]
    assert problems("dpo.lora={merge: false}") == ["quantize.of"]
    assert problems("dpo=null", "sft=null", "data.sft=[]", "data.preference=[]") == ["quantize.calibration.path"]


def test_the_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (problem,) = quantize_problems(tiny().recipe, 1)
    assert quantize.EXTRA in problem
    assert ".[quantize]" in problem


def test_a_base_in_pickles_is_refused(installed: None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}{")
    recipe = load("quantize-causallm-7b", [f"model.base={tmp_path}"]).recipe
    assert "no config.json" in quantize_problems(recipe, 1)[0]
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert "pickles" in quantize_problems(recipe, 1)[0]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("quantize.variants=[{bits: 5}]", "quantize.variants.0.bits: must be 2, 3, 4 or 8"),
        ("quantize.variants=[{group_size: 48}]", "quantize.variants.0.group_size: must be one of -1, 16"),
        ("quantize.variants=[{damp_percent: 1}]", "quantize.variants.0.damp_percent: must be more than 0"),
        ("quantize.variants=[{bit: 4}]", "quantize.variants.0.bit: unknown key; did you mean bits?"),
        ("quantize.backends=[cuda]", "quantize.backends: must be a list of one or more of auto"),
        ("quantize.calibration.length=8", "quantize.calibration.length: must be 16 or more"),
    ],
)
def test_values_out_of_range(override: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny(override)
    assert problem in caught.value.problems[0]
