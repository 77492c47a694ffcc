"""What of a checkpoint is published, and what is refused: pickles, code, odd files, weights that are not whole."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import pytest

from posttrain.errors import UserError
from posttrain.release.model_files import model_files
from posttrain.release.stops import stop_problems


@pytest.fixture
def model(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint."""
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def refused(model: Path, trust: bool = False) -> list[str]:
    with pytest.raises(UserError) as caught:
        model_files(model, trust)
    return caught.value.problems


def write_weights(path: Path, *tensors: str) -> None:
    """Write a safetensors file with one number a tensor."""
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(tensors)
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4 * len(tensors)))


def test_records_of_the_training_are_left_behind(model: Path) -> None:
    for name in ("manifest.json", "history.json", "loss.png", "rejected.parquet"):
        (model / name).touch()
    (model / "adapter").mkdir()
    (model / "adapter" / "adapter_config.json").touch()
    names = model_files(model, False)
    assert "model.safetensors" in names
    assert not {"manifest.json", "loss.png", "adapter/adapter_config.json"} & set(names)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pytorch_model.bin", "pickles and their like run code when they are read"),
        ("training_args.bin", "pickles and their like run code when they are read"),
        ("optimizer.pt", "pickles and their like run code when they are read"),
        ("state.pkl", "pickles and their like run code when they are read"),
        ("modeling_mine.py", "is code, and a model that needs its own is released only with model.trust_remote_code"),
        ("notes.docx", "is of a kind that no release holds"),
        ("deep/model.gguf", "is of a kind that no release holds"),
    ],
)
def test_other_files_are_refused_by_name(model: Path, name: str, said: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).touch()
    (found,) = refused(model)
    assert found.startswith(f"{name}: ")
    assert said in found


def test_remote_code_is_refused_unless_the_recipe_trusts_it(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "modeling_mine.M"}}))
    (found,) = refused(model)
    assert found.startswith("config.json: asks for code of its own (auto_map)")
    (model / "modeling_mine.py").write_text("import os\n")
    assert "modeling_mine.py" in model_files(model, True)


def test_a_pickle_that_is_called_safetensors_is_refused(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\x80\x04\x95" + bytes(200))
    assert refused(model) == ["model.safetensors: is not a safetensors file; nothing else is released or loaded"]


def test_weights_that_were_cut_off_are_refused(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    (found,) = refused(model)
    assert found.startswith("model.safetensors: has ")


def test_shards_have_to_be_what_their_index_says(model: Path) -> None:
    (model / "model.safetensors").unlink()
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    write_weights(model / one, "a", "b")
    write_weights(model / two, "c")
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": one, "b": one, "c": two}}))
    assert {one, two, index.name} <= set(model_files(model, False))

    index.write_text(json.dumps({"weight_map": {"a": one, "b": two, "c": two}}))
    assert refused(model) == [f"{index.name}: 1 tensors are not where it says, the first is b"]
    index.write_text(json.dumps({"weight_map": {"a": one, "b": one, "c": "../../../elsewhere.safetensors"}}))
    assert f"'../../../elsewhere.safetensors': {index.name} names it, and it is not there" in refused(model)
    (model / two).unlink()
    index.write_text(json.dumps({"weight_map": {"a": one, "b": one, "c": two}}))
    assert refused(model) == [f"{two!r}: {index.name} names it, and it is not there"]


def test_links_and_absurd_sizes_are_refused(model: Path) -> None:
    (model / "tokenizer_config.json").unlink()
    os.symlink("/etc/hostname", model / "tokenizer_config.json")
    with (model / "config.json").open("wb") as file:
        file.truncate(1_000_000_000)
    found = refused(model)
    assert any(each.startswith("tokenizer_config.json: is a link") for each in found)
    assert any(each.startswith("config.json: has 1,000 MB") for each in found)


def test_generation_has_to_stop_where_the_template_ends_a_turn(model: Path) -> None:
    assert stop_problems(model, False) == []
    path = model / "generation_config.json"
    config = json.loads(path.read_text())
    stops = config["eos_token_id"]
    path.write_text(json.dumps({**config, "eos_token_id": [stop for stop in stops if stop != stops[0]]}))
    (found,) = stop_problems(model, False)
    assert "the chat template ends a turn with <|eot_id|>" in found
    path.write_text(json.dumps({**config, "eos_token_id": [*stops, 4000]}))
    assert stop_problems(model, False) == [
        "generation_config.json: eos_token_id 4000 is beyond the 400 tokens of the model"
    ]
    path.unlink()
    assert stop_problems(model, False) == ["there is no generation_config.json, so nothing says where generation stops"]
