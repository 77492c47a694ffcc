"""What the tokens of a set depend on: the tokenizer's files, the template and a few settings, and not the weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from posttrain.differences import changed_parts, describe
from posttrain.recipe.schema import Data, Dpo, Model, Recipe, Sft
from posttrain.stages.digest import Digests
from posttrain.stages.fingerprint import Fingerprint, fingerprint
from posttrain.stages.graph import Stage, chain

ENTRY = {"source": "generic", "path": "org/rows"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with what a model folder holds."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("weights")
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    return folder


def recipe_of(base: Path | str, model: dict[str, Any] | None = None, **sft: Any) -> Recipe:
    """Return a recipe without a cpt section."""
    template = str(Path(base).parent / "own.jinja")
    return Recipe(
        name="tokens",
        model=Model(**({"base": str(base), "chat_template": template} | (model or {}))),
        data=Data(sft=[ENTRY], preference=[ENTRY]),
        sft=Sft(**sft),
        dpo=Dpo(),
    )


def stage_of(recipe: Recipe) -> Stage:
    return next(stage for stage in chain(recipe) if stage.name == "tokenize-sft")


def made_from(recipe: Recipe, store: Path) -> Fingerprint:
    """Return the fingerprint of the SFT tokens."""
    stage = stage_of(recipe)
    digests = {file.key: Digests(store).of(file.path) for file in stage.files(recipe) if file.path is not None}
    return fingerprint(stage, dataclasses.asdict(recipe), {"data": "rows"}, digests)


def test_weights_and_training_settings_change_nothing(base: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.json"
    before = made_from(recipe_of(base), store)
    (base / "model.safetensors").write_text("others")
    (base / "config.json").write_text('{"dtype": "float16"}')
    other = {"dtype": "float16", "attn_implementation": "sdpa"}
    assert made_from(recipe_of(base, model=other, learning_rate=1.0, global_batch_size=4), store) == before
    shutil.copytree(base, tmp_path / "elsewhere")
    assert made_from(recipe_of(tmp_path / "elsewhere"), store) == before


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("model/tokenizer.json", "model.base/tokenizer.json: the content of"),
        ("model/chat_template.jinja", "model.base/chat_template.jinja: is a local file now"),
        ("own.jinja", "model.chat_template: the content of"),
    ],
)
def test_a_file_that_changed_is_named(base: Path, tmp_path: Path, file: str, words: str) -> None:
    store = tmp_path / "store.json"
    before = made_from(recipe_of(base), store)
    (tmp_path / file).write_text("{# another #}")
    after = made_from(recipe_of(base), store)
    (part,) = changed_parts(before.parts, after.parts)
    assert describe(part, before.parts, after.parts, {}).startswith(words)


@pytest.mark.parametrize("setting", [{"max_length": 5}, {"packing": "none"}, {"loss_on": "all"}])
def test_a_setting_that_changed_is_named(base: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
    store = tmp_path / "store.json"
    before, after = made_from(recipe_of(base), store), made_from(recipe_of(base, **setting), store)
    assert changed_parts(before.parts, after.parts) == [f"sft.{name}" for name in setting]


def test_the_model_decides_where_the_tokenizer_does_not_name_its_class(base: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.json"
    (base / "tokenizer_config.json").write_text("{}")
    before = made_from(recipe_of(base), store)
    (base / "config.json").write_text('{"model_type": "llama"}')
    after = made_from(recipe_of(base), store)
    assert changed_parts(before.parts, after.parts) == ["file model.base/config.json"]


def test_a_tokenizer_on_the_hub_is_its_name_and_revision(base: Path, tmp_path: Path) -> None:
    hub = Model(base="org/model", revision="abc")
    part = stage_of(recipe_of(base, dataclasses.asdict(hub))).part
    values = dataclasses.asdict(recipe_of(base, dataclasses.asdict(hub)))
    assert part(values)["model"] | {"chat_template": ""} == {
        "base": "org/model",
        "revision": "abc",
        "chat_template": "",
        "trust_remote_code": False,
    }
    other = recipe_of(base, {"tokenizer": "org/tokenizer"})
    model = stage_of(other).part(dataclasses.asdict(other))["model"]
    assert (model.get("tokenizer"), "base" in model, "revision" in model) == ("org/tokenizer", False, False)


def test_a_missing_tokenizer_is_missed(base: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "absent" / "model.gguf")
    (problem,) = [words for file in stage_of(recipe).files(recipe) if (words := file.missing()) and "base" in words]
    assert problem.startswith("model.base: there is no file or folder ")
