"""Memory: the arithmetic of model states, and activations against what autograd really keeps."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from posttrain.planning.activations import activations, layer_activations
from posttrain.planning.memory import NF4_BYTES, Memory, frozen_bytes, model_states, peak
from posttrain.planning.model import KNOWN, Shape, shape
from posttrain.planning.setup import adapter
from posttrain.planning.step import Setup
from posttrain.recipe.schema import Lora

SHAPE_70B = shape(KNOWN["LumiOpen/Llama-Poro-2-70B-base"])
SHAPE_8B = shape(KNOWN["LumiOpen/Llama-Poro-2-8B-base"])
SFT_70B = Setup(shape=SHAPE_70B, stage="sft", rows=1, length=4096, devices=64, checkpointing=True)
SFT_8B = Setup(shape=SHAPE_8B, stage="sft", rows=1, length=4096, checkpointing=True)


def lora_of(sizes: Shape, **changes: Any) -> Any:
    return adapter(Lora(**changes), sizes)


def test_70b_on_64_devices_has_states_of_17_6_gb_each() -> None:
    for way in ("zero3", "fsdp2"):
        states = sum(model_states(replace(SFT_70B, strategy=way)))
        assert states == pytest.approx(16 * SHAPE_70B.parameters.total / 64, abs=4)
        assert states / 1e9 == pytest.approx(17.6, abs=0.05)


def test_zero3_keeps_16_bit_weights_and_32_bit_masters() -> None:
    total = SHAPE_70B.parameters.total
    found = model_states(replace(SFT_70B, strategy="zero3"))
    assert found == tuple(total * each // 64 for each in (2, 2, 12))
    assert model_states(replace(SFT_70B, strategy="fsdp2")) == tuple(total * each // 64 for each in (4, 4, 8))


@pytest.mark.parametrize("strategy", ["none", "ddp"])
def test_states_are_whole_on_every_device_without_sharding(strategy: Any) -> None:
    total = SHAPE_8B.parameters.total
    assert sum(model_states(replace(SFT_8B, strategy=strategy, devices=8))) == 16 * total
    half = replace(SFT_8B, strategy=strategy, devices=8, trainable_dtype="bfloat16")
    assert sum(model_states(half)) == 8 * total


@pytest.mark.parametrize(
    ("optim", "bytes_"),
    [("adamw_torch", 8), ("adamw_8bit", 2 + 8 / 256), ("paged_adamw_8bit", 2 + 8 / 256), ("sgd", 4)],
)
def test_optimiser_states(optim: str, bytes_: float) -> None:
    total = SHAPE_8B.parameters.total
    assert model_states(replace(SFT_8B, optim=optim))[2] == int(total * bytes_)


def test_8_bit_moments_are_those_of_bitsandbytes() -> None:
    import bitsandbytes
    import torch

    weight = torch.nn.Parameter(torch.randn(512, 512))
    optimiser = bitsandbytes.optim.AdamW8bit([weight])
    weight.grad = torch.randn_like(weight)
    optimiser.step()
    state = optimiser.state[weight]
    held = sum(state[name].nbytes for name in ("state1", "state2", "absmax1", "absmax2"))
    assert held == weight.numel() * (2 + 8 / 256)


def test_nf4_is_what_bitsandbytes_stores() -> None:
    import torch
    from bitsandbytes.functional import quantize_4bit

    weight = torch.randn(1024, 1024)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    stored = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert stored == weight.numel() * NF4_BYTES
    assert pytest.approx(4.127, abs=5e-4) == NF4_BYTES * 8


def test_4_bit_weights_leave_embedding_norms_and_head_as_they_are() -> None:
    counts = SHAPE_8B.parameters
    kept = counts.embedding + counts.norm + counts.lm_head
    setup = replace(SFT_8B, adapter=lora_of(SHAPE_8B), nf4=True)
    assert frozen_bytes(setup) == int(counts.blocks * NF4_BYTES) + 2 * kept
    assert frozen_bytes(replace(setup, nf4=False)) == 2 * counts.total


CONFIG = {
    "model_type": "llama",
    "vocab_size": 500,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
LENGTH = 48  # no width of the model, by which casts of weights are told from activations


def kept_by_layer(setup: Setup, lora: Lora | None) -> int:
    """Return the bytes that autograd keeps of the third layer, weights and their casts left out."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    values = {key: value for key, value in CONFIG.items() if key != "model_type"}
    model = LlamaForCausalLM(LlamaConfig(**values, attn_implementation=setup.attention))
    model = model.to(getattr(torch, setup.trainable_dtype if lora is None else setup.dtype)).train()
    inner = model.model
    outer: Any = model
    if lora is not None:
        from peft import get_peft_model

        from posttrain.train.lora import lora_config

        outer = get_peft_model(model, lora_config(lora))
        for parameter in outer.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(getattr(torch, setup.trainable_dtype))
    weights = {parameter.untyped_storage().data_ptr() for parameter in outer.parameters()}
    shapes = {tuple(sizes) for parameter in outer.parameters() for sizes in (parameter.shape, parameter.shape[::-1])}
    at: list[str] = [""]
    for number, layer in enumerate(inner.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: at.__setitem__(0, str(number)))
    inner.norm.register_forward_pre_hook(lambda *_: at.__setitem__(0, "norm"))
    seen: dict[int, tuple[str, int]] = {}
    alive = []

    def pack(tensor: Any) -> Any:
        key = tensor.untyped_storage().data_ptr()
        cast = tensor.dtype != torch.float32 and tuple(tensor.shape) in shapes and LENGTH not in tensor.shape
        if key not in weights and key not in seen and not cast:
            seen[key] = (at[0], tensor.untyped_storage().nbytes())
        alive.append(tensor)  # or its address would be given to another
        return tensor

    ids = torch.randint(0, 500, (1, LENGTH))
    places = torch.arange(LENGTH) % (LENGTH // 2) if setup.packed else torch.arange(LENGTH)
    amp = torch.autocast("cpu", getattr(torch, setup.dtype)) if setup.dtype != "float32" else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), amp:
        outer(input_ids=ids, position_ids=places[None], use_cache=False)
    return sum(size for name, size in seen.values() if name == "2")


@pytest.mark.parametrize("attention", ["sdpa", "eager", "packed"])
@pytest.mark.parametrize(
    ("dtype", "trainable_dtype"), [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")]
)
@pytest.mark.parametrize(
    "lora",
    [
        None,
        Lora(r=8),
        Lora(r=8, dropout=0.1),
        Lora(r=8, target_modules=["q_proj", "v_proj"]),
        Lora(r=8, target_modules=["o_proj", "gate_proj", "down_proj"]),
    ],
    ids=["full", "lora", "dropout", "q-v", "o-gate-down"],
)
def test_a_layer_keeps_what_autograd_keeps(lora: Lora | None, dtype: str, trainable_dtype: str, attention: str) -> None:
    sizes = shape(CONFIG)
    setup = Setup(
        shape=sizes,
        stage="sft",
        rows=1,
        length=LENGTH,
        dtype=dtype,
        trainable_dtype=trainable_dtype,
        cpu=True,
        adapter=None if lora is None else adapter(lora, sizes),
        attention="sdpa" if attention == "packed" else attention,
        packed=attention == "packed",
    )
    assert layer_activations(setup) == pytest.approx(kept_by_layer(setup, lora), rel=0.01)


def test_checkpointing_keeps_one_input_a_layer() -> None:
    kept = activations(SFT_8B)
    inputs = SHAPE_8B.layers * 4096 * SHAPE_8B.hidden * 4
    last = 4096 * (4 * SHAPE_8B.hidden + 4 + 2 * 4 * SHAPE_8B.hidden)
    assert kept == inputs + last
    assert activations(replace(SFT_8B, checkpointing=False)) > 10 * kept


def total(setup: Setup) -> int:
    return peak(setup).total


def test_attention_without_a_mask_grows_with_the_length_and_with_one_with_its_square() -> None:
    once, twice = (layer_activations(replace(SFT_8B, length=length)) for length in (2048, 4096))
    assert twice == 2 * once
    for kind in ({"packed": True}, {"attention": "eager"}):
        once, twice = (layer_activations(replace(SFT_8B, length=length, **kind)) for length in (2048, 4096))
        assert twice > 2 * once


def test_what_saves_memory_saves_it() -> None:
    plain = replace(SFT_8B, checkpointing=False, rows=2)
    eight = replace(plain, devices=8, strategy="ddp")
    assert total(replace(plain, checkpointing=True)) < total(plain)
    assert total(replace(plain, rows=1)) < total(plain)
    assert total(replace(eight, strategy="fsdp2")) < total(plain) <= total(eight)
    assert total(replace(eight, strategy="fsdp2", devices=16)) < total(replace(eight, strategy="fsdp2"))
    low = replace(plain, adapter=lora_of(SHAPE_8B))
    assert total(replace(low, nf4=True)) < total(low) < total(plain)
    pairs = replace(plain, stage="dpo")
    assert total(plain) < total(pairs) < total(replace(pairs, reference=True))


def test_a_reference_costs_a_copy_of_the_weights() -> None:
    pairs = replace(SFT_8B, stage="dpo")
    for setup in (pairs, replace(pairs, strategy="fsdp2", devices=8)):
        with_model = peak(replace(setup, reference=True))
        assert with_model.total - peak(setup).total == with_model.reference
        assert with_model.reference == model_states(setup)[0]
    assert peak(replace(pairs, reference=True)).reference == 4 * SHAPE_8B.parameters.total


def test_an_evaluation_has_all_logits_of_its_batch() -> None:
    setup = replace(SFT_8B, eval_rows=64)
    found = peak(setup)
    assert found.moment == "the evaluation"
    assert found.head == 64 * 4096 * 128256 * 6
    assert isinstance(found, Memory)


def test_8b_qlora_fits_24_gb_at_4096_tokens() -> None:
    from posttrain.planning.hardware import HARDWARE
    from posttrain.planning.setup import setup
    from posttrain.recipe import load

    recipe = load("8b-qlora").recipe
    for stage in ("sft", "dpo"):
        found = setup(recipe, stage, SHAPE_8B, devices=1, how="none")
        assert found.length == 4096
        assert found.nf4
        assert peak(found).total < HARDWARE["RTX4090"].usable < 24e9
    without = replace(setup(recipe, "sft", SHAPE_8B, devices=1, how="none"), checkpointing=False)
    assert peak(without).total > HARDWARE["RTX4090"].usable
