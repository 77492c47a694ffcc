"""A recipe made small keeps what it says, and nothing of it reaches outside the package or the output folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.recipe import builtin_recipes, load
from posttrain.recipe.smoke import STEPS, smoke
from posttrain.stages.graph import chain

RECIPES = sorted(name for name, _, _ in builtin_recipes())


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_is_read_from_outside(name: str, tmp_path: Path) -> None:
    before = load(name, [f"output_dir={tmp_path / 'out'}"])
    small = smoke(before).loaded
    assert [stage.name for stage in chain(small.recipe)] == [stage.name for stage in chain(before.recipe)]
    own = tmp_path / "out-smoke"
    for stage in chain(small.recipe):
        for file in stage.files(small.recipe):
            assert file.path is not None, f"{file.key} is on the hub"
            assert not file.missing() or own in file.path.parents, file
    assert small.recipe.output_dir == str(own)
    assert small.arguments == (name, f"output_dir={tmp_path / 'out'}", "--smoke")


@pytest.mark.parametrize("name", RECIPES)
def test_what_the_recipe_says_of_training_stays(name: str) -> None:
    before, after = load(name).recipe, smoke(load(name)).loaded.recipe
    for section in ("sft", "dpo"):
        one, other = getattr(before, section), getattr(after, section)
        assert (one is None) == (other is None)
        if one is not None:
            assert other.max_steps == STEPS
            for key in ("learning_rate", "lr_scheduler_type", "lora", "quantization", "gradient_checkpointing"):
                assert getattr(other, key) == getattr(one, key)
    assert (after.model.dtype, after.seed, after.data.filters) == (
        before.model.dtype, before.seed, before.data.filters
    )  # fmt: skip
    assert [type(entry) for entry in after.generate] == [type(entry) for entry in before.generate]
    assert [entry.language for entry in after.data.sft] == [entry.language for entry in before.data.sft]
