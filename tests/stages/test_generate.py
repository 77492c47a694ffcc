"""What determines generated rows, and what of their stage the data stage sees."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from posttrain.recipe.schema import Data, Model, Recipe
from posttrain.recipe.schema_generate import Respond, RewardModel, Teacher
from posttrain.stages.generate import with_folders
from posttrain.stages.graph import Stage, chain

SOURCE = {"source": "generic", "path": "rows.jsonl"}


def recipe_of(teacher: dict[str, Any] | None = None, entry: dict[str, Any] | None = None, **others: Any) -> Recipe:
    options: dict[str, Any] = {"rollout": "respond", "name": "answers", "source": SOURCE, **(entry or {})}
    return Recipe(
        name="x",
        model=Model(base="some/model"),
        teacher=Teacher(**{"model": "big", **(teacher or {})}),
        generate=[Respond(**options)],
        data=Data(sft=[{"source": "generated", "path": "answers"}, SOURCE]),
        **others,
    )


def part_of(recipe: Recipe) -> dict[str, Any]:
    return stage_of(recipe).part(dataclasses.asdict(recipe))


def stage_of(recipe: Recipe, name: str = "generate") -> Stage:
    return next(stage for stage in chain(recipe) if stage.name == name)


@pytest.mark.parametrize(
    "teacher",
    [
        {"base_url": "http://elsewhere:9/v1"},
        {"api_key_env": "KEY"},
        {"max_concurrency": 3, "timeout": 5.0, "max_attempts": 2, "batch_size": 3},
        {"engine": "local"},
    ],
)
def test_where_and_how_fast_a_model_is_asked_changes_nothing(teacher: dict[str, Any]) -> None:
    assert part_of(recipe_of(teacher)) == part_of(recipe_of())


@pytest.mark.parametrize(
    "changed",
    [
        recipe_of({"model": "bigger"}),
        recipe_of({"revision": "abc"}),
        recipe_of(entry={"n": 2}),
        recipe_of(seed=43),
        recipe_of(judge=Teacher(model="judge")),
        recipe_of(reward=RewardModel(model="reward")),
    ],
)
def test_what_is_asked_of_whom_does(changed: Recipe) -> None:
    assert part_of(changed) != part_of(recipe_of())


def test_the_text_of_the_prompts_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(entry={"n": 3, "best_of": "judge"})
    before = part_of(recipe)
    assert any(name.endswith("quality.jinja") for name in before["prompts"])
    monkeypatch.setattr(
        "posttrain.data.generate.prompts.prompt_texts", lambda names: dict.fromkeys(names, "Rate this.")
    )
    assert part_of(recipe) != before


def test_data_reads_the_stage_and_not_a_file(tmp_path: Path) -> None:
    recipe = recipe_of()
    assert stage_of(recipe, "data").inputs == ("generate",)
    assert [file.key for file in stage_of(recipe, "data").files(recipe)] == ["data.sft.1.path"]
    generated, other = with_folders(recipe.data, tmp_path).sft
    assert (generated.path, generated.name) == (str(tmp_path / "answers"), "answers")
    assert other.path == "rows.jsonl"
    without = dataclasses.replace(recipe, data=Data(sft=[SOURCE]))
    assert stage_of(without, "data").inputs == ()
