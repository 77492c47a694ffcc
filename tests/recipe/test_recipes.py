"""The recipes that the package ships, with the real sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import posttrain
from posttrain.assets import asset_folder
from posttrain.recipe import builtin_recipes, load, render_resolved

ROOT = Path(posttrain.__file__).resolve().parent.parent
RECIPES = sorted(asset_folder("recipes").glob("*.yaml"))
HEAVY = ("torch", "transformers", "datasets", "trl", "pyarrow", "matplotlib", "numpy")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_and_renders(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(path.stem)
    assert loaded.path == path
    again = tmp_path / "again.yaml"
    again.write_text(render_resolved(loaded), encoding="utf-8")
    assert load(again).recipe == loaded.recipe


def test_recipes_describe_themselves_and_have_names_of_their_own() -> None:
    assert all(description for _, description, _ in builtin_recipes())
    names = [load(name).recipe.name for name, _, _ in builtin_recipes()]
    assert len(set(names)) == len(names) > 0


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_batches_divide_over_the_processes(path: Path) -> None:
    recipe = load(path).recipe
    for stage in (recipe.cpt, recipe.sft, recipe.dpo):
        if stage is not None:
            assert stage.global_batch_size % (stage.per_device_train_batch_size * recipe.launch.num_processes) == 0


def test_poro2_70b_has_the_numbers_of_its_card() -> None:
    recipe = load("70b").recipe
    assert recipe.sft is not None
    assert recipe.dpo is not None
    sft, dpo = recipe.sft, recipe.dpo
    assert (sft.num_train_epochs, sft.global_batch_size, sft.learning_rate) == (2, 128, 5e-6)
    assert (sft.lr_scheduler_type, sft.warmup_ratio, sft.max_length) == ("linear", 0.03, 4096)
    assert (dpo.num_train_epochs, dpo.global_batch_size, dpo.learning_rate, dpo.beta) == (3, 64, 5e-7, 0.01)
    assert (dpo.lr_scheduler_type, dpo.warmup_ratio, dpo.max_length) == ("cosine", 0.1, 4096)
    # The reference ran 1 row on each of 64 devices and accumulated twice.
    assert sft.global_batch_size == sft.per_device_train_batch_size * recipe.launch.num_processes * 2


def test_loading_imports_nothing_heavy() -> None:
    script = (
        "import sys; from posttrain.recipe import load, render_resolved; "
        "render_resolved(load('8b-qlora', ['sft.trainer.neftune_noise_alpha=5'])); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
