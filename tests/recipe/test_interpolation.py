"""`${...}`, and what came from the environment."""

from __future__ import annotations

import json

import pytest

from posttrain.recipe import render_resolved
from tests.recipe.conftest import Load, Problems

SECRET = "hunter-two"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECIPE_SECRET", SECRET)
    monkeypatch.delenv("RECIPE_NOT_SET", raising=False)


def test_keys_defaults_and_sections(load_text: Load, full: str) -> None:
    loaded = load_text(full.replace("name: mine", "name: rows-${seed}-${launch.num_processes}-${dpo.max_length}"))
    recipe = loaded.recipe
    assert recipe.output_dir == "out/full"
    assert recipe.data.sft[0].name == "rows-7-2-4096"
    assert recipe.sft is not None
    assert recipe.dpo is not None
    assert recipe.dpo.lora == recipe.sft.lora
    assert loaded.origins["dpo.lora.r"] == loaded.origins["dpo.lora"]


def test_numbers_keep_their_type(load_text: Load, full: str) -> None:
    recipe = load_text(full.replace("  beta: 0.01\n", "  beta: 0.01\n  max_length: ${sft.max_length}\n")).recipe
    assert recipe.dpo is not None
    assert recipe.dpo.max_length == 128


def test_text_is_converted_to_what_the_key_wants(load_text: Load, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECIPE_SEED", "11")
    assert load_text(small + "seed: ${oc.env:RECIPE_SEED}\n").recipe.seed == 11


def test_defaults_of_variables(load_text: Load, small: str) -> None:
    loaded = load_text(small + "output_dir: ${oc.env:RECIPE_NOT_SET,elsewhere}/x\n")
    assert loaded.recipe.output_dir == "elsewhere/x"


def test_a_section_that_was_an_interpolation_gets_its_defaults(load_text: Load, small: str) -> None:
    loaded = load_text(small + "data: {validation: \"${oc.decode:'{fraction: 0.2}'}\"}\n")
    assert (loaded.recipe.data.validation.fraction, loaded.recipe.data.validation.max_rows) == (0.2, 2000)
    assert str(loaded.origins["data.validation.max_rows"]) == "default"


def test_escaped_interpolation_is_text(load_text: Load, small: str) -> None:
    loaded = load_text(small + "output_dir: 'a/\\${name}'\n")
    assert loaded.recipe.output_dir == "a/${name}"
    assert not loaded.secret_keys


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("${oc.env:RECIPE_NOT_SET}", "the environment variable RECIPE_NOT_SET is not set; set it, or give"),
        ("${nme}", "the recipe has no key nme"),
        ("${model.bse}", "the recipe has no key model.bse"),
        ("${output_dir}", "recursive interpolation detected"),
        ("${nosuch:1}", "unsupported interpolation type nosuch"),
    ],
)  # fmt: skip
def test_failures_say_where(problems: Problems, small: str, value: str, problem: str) -> None:
    found = problems(small + f"output_dir: {value}\n")
    assert len(found) == 1
    assert found[0].startswith(f"x.yaml:3: output_dir: {value}: ")
    assert problem in found[0]


def test_malformed(problems: Problems, small: str) -> None:
    (found,) = problems(small + "output_dir: 'a${'\n")
    assert found.startswith("x.yaml:3: output_dir: not a valid interpolation: ")


def test_failures_come_together_with_other_problems(problems: Problems, small: str) -> None:
    found = problems(small + "output_dir: ${oc.env:RECIPE_NOT_SET}\nreport_to: ['${nosuch}']\nsede: 3\nseed: x\n")
    assert [line.split(": ")[1] for line in found] == ["output_dir", "report_to.0", "seed", "sede"]


def test_a_missing_name_is_said_once(problems: Problems) -> None:
    """The default of `output_dir` refers to `name`; its failure is no problem of its own."""
    assert len(problems("model: {base: a}\n")) == 1


@pytest.fixture
def secretive(full: str) -> str:
    return (
        full.replace("config: launch/cpu.yaml", "config: /${oc.env:RECIPE_SECRET}/cpu.yaml")
        .replace("attn_implementation: sdpa", "attn_implementation: ${launch.config}")
        .replace("report_to: [tensorboard]", "report_to: ['${oc.env:RECIPE_SECRET}', plain]")
        .replace("bias: none", "bias: none\n    modules_to_save: ['${oc.env:RECIPE_SECRET}']")
        .replace("    modules_to_save: [lm_head]\n", "")
        .replace("use_weighting: true", "hub_token: ${oc.env:RECIPE_SECRET}")
    )


def test_secrets_are_shown_as_interpolations(load_text: Load, secretive: str) -> None:
    loaded = load_text(secretive)
    assert loaded.recipe.launch.config == f"/{SECRET}/cpu.yaml"
    assert loaded.recipe.model.attn_implementation == f"/{SECRET}/cpu.yaml"
    assert loaded.recipe.dpo is not None
    assert loaded.recipe.dpo.trainer == {"hub_token": SECRET}
    assert loaded.masks == {
        "launch.config": "/${oc.env:RECIPE_SECRET}/cpu.yaml",
        "model.attn_implementation": "${launch.config}",
        "report_to.0": "${oc.env:RECIPE_SECRET}",
        "sft.lora.modules_to_save.0": "${oc.env:RECIPE_SECRET}",
        "dpo.lora.modules_to_save.0": "${sft.lora}",
        "dpo.trainer.hub_token": "${oc.env:RECIPE_SECRET}",
    }
    assert loaded.secret_keys == set(loaded.masks)
    assert SECRET not in json.dumps(loaded.resolved())
    assert SECRET not in render_resolved(loaded)
    assert loaded.resolved(show_secrets=True)["launch"]["config"] == f"/{SECRET}/cpu.yaml"
    # What does not depend on the environment is shown.
    assert loaded.resolved()["output_dir"] == "out/full"
    assert loaded.resolved()["dpo"]["lora"]["r"] == 8


def test_errors_do_not_tell_secrets(problems: Problems, full: str) -> None:
    wrong = (
        full.replace("seed: 7", "seed: ${oc.env:RECIPE_SECRET}")
        .replace("dtype: float32", "dtype: ${oc.env:RECIPE_SECRET}")
        .replace("source: both", "source: ${oc.env:RECIPE_SECRET}")
        .replace("name: full", "name: a/${oc.env:RECIPE_SECRET}")
        .replace("beta: 0.01", "beta: ${seed}")
    )
    found = problems(wrong)
    assert len(found) >= 5
    assert "x.yaml:2: seed: must be a whole number, not the value of ${oc.env:RECIPE_SECRET}" in found
    assert SECRET not in "\n".join(found)
