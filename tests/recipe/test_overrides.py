"""`key=value` arguments."""

from __future__ import annotations

import dataclasses

import pytest

from tests.recipe.conftest import Load, Problems


def test_values_are_yaml_and_origins_say_the_command_line(load_text: Load, full: str) -> None:
    loaded = load_text(
        full, "sft.learning_rate=1e-4", "report_to=[a, b]", "dpo.loss_type=[ipo]", "model.attn_implementation=x=y"
    )
    recipe = loaded.recipe
    assert recipe.sft is not None
    assert recipe.dpo is not None
    assert recipe.sft.learning_rate == 1e-4
    assert recipe.report_to == ["a", "b"]
    assert recipe.dpo.loss_type == ["ipo"]
    assert recipe.model.attn_implementation == "x=y"
    assert str(loaded.origins["sft.learning_rate"]) == "command line"
    assert loaded.overrides[0] == "sft.learning_rate=1e-4"


@pytest.mark.parametrize("key", ["data.sft.1.max_rows", "data.sft[1].max_rows"])
def test_list_entries_are_reached_by_index(load_text: Load, full: str, key: str) -> None:
    recipe = load_text(full, f"{key}=3").recipe
    assert [entry.max_rows for entry in recipe.data.sft] == [None, 3]


def test_sections_are_created(load_text: Load, small: str) -> None:
    text = small + "sft: {lora: null}\ndata: {sft: [{source: chats, path: a}]}\n"
    sft = load_text(text, "sft.lora.r=4").recipe.sft
    assert sft is not None
    assert sft.lora is not None
    assert sft.lora.r == 4
    dpo = load_text(small, "dpo.lora.r=4", "data.preference=[{source: pairs, path: a}]").recipe.dpo
    assert dpo is not None
    assert dpo.lora is not None
    assert dpo.lora.r == 4


def test_a_mapping_merges_and_null_removes(load_text: Load, full: str) -> None:
    merged = load_text(full, "sft.lora={r: 4}").recipe.sft
    assert merged is not None
    assert merged.lora is not None
    assert (merged.lora.r, merged.lora.alpha) == (4, 16)
    removed = load_text(full, "dpo=null", "sft.quantization=none", "sft.lora=null").recipe
    assert removed.dpo is None
    assert removed.sft is not None
    assert removed.sft.lora is None


def test_later_overrides_win(load_text: Load, small: str) -> None:
    assert load_text(small, "seed=1", "seed=2").recipe.seed == 2


def test_interpolations_see_overrides(load_text: Load, small: str) -> None:
    assert load_text(small, "name=other").recipe.output_dir == "outputs/other"
    assert load_text(small, "model.revision=v${seed}").recipe.model.revision == "v42"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("seed", "seed: not an override; write key=value, such as sft.learning_rate=1e-5"),
        ("=3", "=3: not an override; write key=value, such as sft.learning_rate=1e-5"),
        ("sft..lora=3", "sft..lora=3: not an override; write key=value, such as sft.learning_rate=1e-5"),
        ("seed=[1", "seed: not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        ("sft={packing: a, packing: b}", "sft: packing: this key is given twice; keep one of them"),
        ("seed.x=1", "seed.x: seed is a single value (7), so it has no key x"),
        ("data.sft.5.path=x", "data.sft.5.path: data.sft is a list, and '5' is not one of its entries; its entries"),
        ("data.sft.-1.path=x", "data.sft.-1.path: data.sft is a list, and '-1' is not one of its entries; its"),
        ("data.preference.1=x", "data.preference.1: data.preference is a list, and '1' is not one of its entries; its"),
        ("model.0=x", "model.0: there is no list at model"),
        ("sft.learing_rate=1", "sft.learing_rate: unknown key; did you mean learning_rate?"),
        ("extends=x.yaml", "extends: unknown key; "),
    ],
)  # fmt: skip
def test_what_cannot_be_applied(problems: Problems, full: str, override: str, problem: str) -> None:
    found = problems(full, override)
    assert len(found) == 1
    assert found[0].startswith(f"command line: {problem}")


def test_all_are_reported_together(problems: Problems, small: str) -> None:
    assert len(problems(small + "seed: 3\n", "seed", "x=[", "seed.y=1", "model.x.y=1", "sedd=1", "launch.cpu=abc")) == 6


def test_an_override_leaves_the_files_tree_alone(load_text: Load, full: str) -> None:
    plain = load_text(full).recipe
    assert dataclasses.replace(load_text(full, "seed=8").recipe, seed=plain.seed) == plain
