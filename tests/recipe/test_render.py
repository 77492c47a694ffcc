"""The resolved recipe, as plain values and as YAML with origins."""

from __future__ import annotations

import dataclasses
import json

import pytest

from posttrain.recipe import load, render_resolved, schema
from tests.recipe.conftest import Load, Write


def test_resolved_is_plain_and_in_the_order_of_the_schema(load_text: Load, full: str) -> None:
    resolved = load_text(full).resolved()
    assert json.loads(json.dumps(resolved)) == resolved
    assert list(resolved) == list(schema.Recipe.__dataclass_fields__)
    assert list(resolved["sft"]) == list(schema.Sft.__dataclass_fields__)
    assert resolved["output_dir"] == "out/full"
    assert resolved["data"]["sft"][0]["take"] == "all"


def test_every_value_has_an_origin(load_text: Load, full: str) -> None:
    loaded = load_text(full)

    def leaves(value: object, key: str) -> list[str]:
        if isinstance(value, dict):
            return [leaf for name, child in value.items() for leaf in leaves(child, f"{key}.{name}")]
        if isinstance(value, list):
            return [leaf for index, child in enumerate(value) for leaf in leaves(child, f"{key}.{index}")]
        return [key]

    assert {leaf[1:] for leaf in leaves(loaded.resolved(), "")} <= set(loaded.origins)


def test_lines_say_where_values_came_from(load_text: Load, full: str) -> None:
    lines = render_resolved(load_text(full, "sft.lora.r=4", "data.sft.1.path=b.jsonl")).splitlines()
    shown = [" ".join(line.split()) for line in lines]
    line_of = {line: number for number, line in enumerate(full.splitlines(), 1)}
    assert shown[0] == "name: full # x.yaml:1"
    assert "output_dir: out/full # x.yaml:3" in shown
    assert "base: null # default" in shown
    assert "r: 4 # command line" in shown
    assert "path: b.jsonl # command line" in shown
    assert f"learning_rate: 5e-06 # x.yaml:{line_of['  learning_rate: 5e-6']}" in shown
    assert f"- q_proj # x.yaml:{line_of['    target_modules: [q_proj, v_proj]']}" in shown
    assert all(" # " in line for line in shown)


def test_the_rendered_recipe_is_the_same_recipe(load_text: Load, write: Write, full: str) -> None:
    loaded = load_text(full)
    again = load(write(render_resolved(loaded), "again.yaml"))
    assert again.recipe == loaded.recipe
    assert again.resolved() == loaded.resolved()


@pytest.mark.parametrize(
    "text",
    [
        "no", "5e-6", "null", "", " a ", "a: b", "a #b", "#a", "- a", "[a", "{a}", "${name}", "'a", '"', "a\nb",
        "ä", "a:", "*a", "!a", "1", "1:30", "~", "a\\b", "%a", "@a", "\u2028", "|", "???x", "2024-01-01",
    ],
)  # fmt: skip
def test_any_text_reads_back(load_text: Load, write: Write, small: str, text: str) -> None:
    loaded = load_text(small)
    model = dataclasses.replace(loaded.recipe.model, attn_implementation=text)
    loaded = dataclasses.replace(loaded, recipe=dataclasses.replace(loaded.recipe, model=model))
    again = load(write(render_resolved(loaded), "again.yaml"))
    assert again.recipe.model.attn_implementation == text


def test_secrets_read_back_from_the_environment(
    load_text: Load, write: Write, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECIPE_SECRET", "hunter-two")
    loaded = load_text(small + "launch: {config: '${oc.env:RECIPE_SECRET}/x: y'}\n")
    assert "hunter-two" not in render_resolved(loaded)
    again = load(write(render_resolved(loaded), "again.yaml"))
    assert again.recipe == loaded.recipe
    assert again.masks == loaded.masks
