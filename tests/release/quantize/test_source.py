"""Checkpoints that are refused, and what is read of those that are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from posttrain.errors import UserError
from posttrain.recipe.schema_quantize import Variant
from posttrain.release.quantize.advice import advice
from posttrain.release.quantize.kernels import exllama, undivided, warnings
from posttrain.release.quantize.source import input_columns, source_problems, tensor_shapes, weight_bytes

Edit = Callable[[Path], object]


def to_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def add(name: str, **values: object) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return edit


def to_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (to_pickle, "are pickles (pytorch_model.bin), which run code"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no safetensors weights"),
        (add("config.json", auto_map={"AutoModelForCausalLM": "x.Y"}), "wants its own code to be run"),
        (add("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Y", None]}), "wants its own code to be run"),
        (add("config.json", quantization_config={"bits": 4}), "is quantised already"),
        (to_adapter, "is an adapter"),
        (lambda folder: (folder / "config.json").unlink(), "holds no model"),
    ],
)
def test_what_is_refused(checkpoint: Path, tmp_path: Path, edit: Edit, problem: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    assert not source_problems(folder, "model.base", trust_remote_code=False)
    edit(folder)
    (found,) = source_problems(folder, "model.base", trust_remote_code=False)
    assert found.startswith("model.base: ")
    assert problem in found
    assert str(tmp_path) not in found
    assert ("own code" in problem) == (not source_problems(folder, "model.base", trust_remote_code=True))


def test_columns_are_read_from_the_headers(checkpoint: Path, tmp_path: Path) -> None:
    shapes = tensor_shapes(checkpoint)
    assert input_columns(shapes) == {
        "down_proj": 128, "gate_proj": 64, "k_proj": 64, "o_proj": 64, "q_proj": 64, "up_proj": 64, "v_proj": 64,
    }  # fmt: skip
    bloom = {"h.0.mlp.dense_4h_to_h.weight": (64, 256), "h.0.input_layernorm.weight": (64,), "word.weight": (9, 64)}
    assert input_columns(bloom) == {"dense_4h_to_h": 256}
    assert weight_bytes(checkpoint) == (checkpoint / "model.safetensors").stat().st_size
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x02pickle of some kind")
    with pytest.raises(UserError, match="not a safetensors file"):
        tensor_shapes(tmp_path)


SMOLLM2 = {"q_proj": 576, "down_proj": 1536}


def test_groups_that_do_not_divide_a_layer() -> None:
    assert undivided(Variant(group_size=128), SMOLLM2) == {"q_proj": 576}
    assert undivided(Variant(group_size=64), SMOLLM2) == {}
    assert undivided(Variant(group_size=-1), SMOLLM2) == {}
    lines = warnings([Variant(group_size=size) for size in (64, 128, 1024, -1)], SMOLLM2)
    assert [line.partition(":")[0] for line in lines] == [
        "gptq-4bit-128g-actorder_True",
        "gptq-4bit-1024g-actorder_True",
        "gptq-4bit--1g-actorder_True",
    ]
    assert "576 and 1,536 input columns of q_proj, down_proj" in lines[1]


def test_exllama_reads_4_bits_of_llama_and_mistral() -> None:
    assert [exllama(Variant(bits=bits), kind) for bits, kind in ((4, "llama"), (4, "mistral"), (8, "llama"))] == [
        True, True, False,
    ]  # fmt: skip
    assert not exllama(Variant(bits=4), "bloom")


def row(**changes: object) -> dict[str, object]:
    works = {"generates": True}
    return {
        "bits": 4,
        "group_size": 64,
        "desc_act": True,
        "perplexity_ratio": 1.08,
        "backends": {"auto": works, "torch": works},
        "undivided": [],
        "exllama": True,
        "failed": None,
        **changes,
    }


def test_advice_says_what_its_row_says() -> None:
    assert advice(row()) == (
        "4 bits, groups of 64, act order: perplexity 1.080 times the unquantised model's, a noticeable loss. It "
        "generates with backend=auto and torch. ExLlama reads its format."
    )
    broken = {"auto": {"generates": False, "reason": "x"}, "torch": {"generates": True}}
    text = advice(row(bits=8, group_size=128, desc_act=False, backends=broken, exllama=False, undivided=["q_proj"]))
    assert text.startswith("8 bits, groups of 128, no act order")
    assert "Load it with backend=torch; it does not generate with auto, as its groups do not divide" in text
    assert "ExLlama" not in text
    words = [advice(row(perplexity_ratio=ratio)).partition(", ")[2] for ratio in (0.99, 1.01, 1.05, 1.15, 1.16)]
    assert all("hardly any loss" in word for word in words[:2])
    assert "a small loss" in words[2]
    assert "a noticeable loss" in words[3]
    assert "a heavy loss" in words[4]
    assert advice(row(failed="it broke")).endswith("do not use it, it broke.")
