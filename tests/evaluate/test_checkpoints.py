"""Loading what is measured: adapters on their base, and quantised weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.errors import UserError
from posttrain.evaluate.checkpoints import load, problems
from tests.evaluate.made import checkpoint
from tests.helpers import make_tokenizer


def test_an_adapter_is_put_onto_its_base(models: tuple[Path, Path], tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(models[0])
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    ids = torch.tensor([[5, 9, 30, 31]])
    with torch.no_grad():
        expected = adapted(ids).logits
        loaded = load(
            checkpoint(tmp_path, "sft", kind="sft", under=str(models[0])), dtype="float32", device=torch.device("cpu")
        )
        found = loaded.model(ids).logits
        plain = load(checkpoint(models[0]), dtype="float32", device=torch.device("cpu")).model(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (found - plain).abs().max() > 1e-3
    with pytest.raises(UserError, match="is an adapter, and its base is not known"):
        load(checkpoint(tmp_path, "sft", kind="sft"), dtype="float32", device=torch.device("cpu"))


def test_what_is_no_model_is_named(models: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    found = problems([checkpoint(models[0]), checkpoint(tmp_path / "none", "a"), checkpoint(file, "b")])
    assert found == [
        f"eval: a: the folder {tmp_path / 'none'} does not exist",
        f"eval: b: {file} is a file; give the folder of a model",
    ]


def test_code_of_a_model_is_not_run(models: tuple[Path, Path], tmp_path: Path) -> None:
    import json
    import shutil

    import torch

    foreign = tmp_path / "foreign"
    shutil.copytree(models[0], foreign)
    config = json.loads((foreign / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (foreign / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (foreign / "code.py").write_text("raise SystemExit('it was run')\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"run only with model\.trust_remote_code=true"):
        load(checkpoint(foreign), dtype="float32", device=torch.device("cpu"))
