"""What GPTQModel saves, put in order: the same bytes again, the source's tokenizer, and nothing of the machine."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from posttrain.chat import resolve
from posttrain.release.quantize.tidy import tidy
from tests.release.quantize.saved import save_as_gptqmodel

VARIANT = {"bits": 4, "group_size": 64, "desc_act": True, "damp_percent": 0.1}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_folders_become_equal(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_as_gptqmodel(tmp_path / name, checkpoint, VARIANT)
    assert contents_differ(tmp_path)
    for name in ("one", "two"):
        tidy(tmp_path / name, checkpoint, checkpoint, template=None, stops=[])
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert all((path.stat().st_mode & 0o777) == 0o644 for path in (tmp_path / "one").iterdir())


def contents_differ(folder: Path) -> bool:
    def files(name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (folder / name).iterdir() if path.is_file()}

    return files("one") != files("two")


def test_tokenizer_and_generation_settings_are_the_sources(checkpoint: Path, tmp_path: Path) -> None:
    save_as_gptqmodel(tmp_path / "one", checkpoint, VARIANT)
    tidy(tmp_path / "one", checkpoint, checkpoint, template=None, stops=[])
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "one" / name).read_bytes() == (checkpoint / name).read_bytes()
    source = json.loads((checkpoint / "generation_config.json").read_text())
    assert json.loads((tmp_path / "one" / "generation_config.json").read_text()) == source
    text = "".join(content.decode(errors="replace") for content in contents(tmp_path / "one").values())
    assert "/tmp/" not in text
    assert str(checkpoint) not in text
    assert not (tmp_path / "one" / "quant_log.csv").exists()
    assert not (tmp_path / "one" / "offload").exists()


def test_unquantised_weights_get_their_dtype_back_and_packed_ones_stay(checkpoint: Path, tmp_path: Path) -> None:
    save_as_gptqmodel(tmp_path / "one", checkpoint, VARIANT)
    tidy(tmp_path / "one", checkpoint, checkpoint, template=None, stops=[])
    found = load_file(tmp_path / "one" / "model.safetensors")
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor)
    assert found["model.layers.0.mlp.up_proj.scales"].dtype == torch.float16
    assert found["model.layers.0.mlp.up_proj.qweight"].dtype == torch.int32
    with safe_open(str(tmp_path / "one" / "model.safetensors"), framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert config["quantization_config"]["meta"] == {"damp_percent": 0.1, "quantizer": ["gptqmodel:7.6.0"]}
    assert json.loads((tmp_path / "one" / "quantize_config.json").read_text()) == config["quantization_config"]


def test_a_template_of_the_recipe_brings_its_stop_tokens(checkpoint: Path, tmp_path: Path) -> None:
    save_as_gptqmodel(tmp_path / "one", checkpoint, VARIANT)
    tidy(tmp_path / "one", checkpoint, checkpoint, template=resolve("chatml", None), stops=[5, 6])
    assert "<|im_start|>" in (tmp_path / "one" / "chat_template.jinja").read_text()
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "one" / name).read_text())["eos_token_id"] == [5, 6]
