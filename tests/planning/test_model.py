"""Parameters by kind, against the models themselves made without memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import UserError
from posttrain.planning.model import KNOWN, Shape, config_of, shape
from posttrain.recipe.schema import Lora, Model, NewModel

SIZES: dict[str, Any] = {
    "vocab_size": 640,
    "hidden_size": 96,
    "intermediate_size": 224,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


def on_meta(config: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = config["model_type"]
    values = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values))


def by_kind(model: Any) -> dict[str, int]:
    found = dict.fromkeys(("embedding", "attention", "mlp", "norm", "lm_head"), 0)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            kind = "norm"
        elif "embed_tokens" in name:
            kind = "embedding"
        elif "lm_head" in name:
            kind = "lm_head"
        else:
            kind = "attention" if "self_attn" in name else "mlp"
        found[kind] += parameter.numel()
    return found


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"head_dim": 24}),
        ("mistral", {"head_dim": 16}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 32}),
        ("qwen3", {}),
        ("smollm3", {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
    ],
)
def test_parameters_are_those_of_the_model(kind: str, extra: dict[str, Any], tied: bool) -> None:
    config = {"model_type": kind, **SIZES, **extra, "tie_word_embeddings": tied}
    model, counts = on_meta(config), shape(config).parameters
    assert {name: getattr(counts, name) for name in by_kind(model)} == by_kind(model)
    assert counts.total == model.num_parameters()


@pytest.mark.parametrize(
    ("name", "billions"), [("LumiOpen/Llama-Poro-2-8B-base", 8.030), ("meta-llama/Llama-3.1-70B", 70.554)]
)
def test_known_bases_have_their_published_sizes(name: str, billions: float) -> None:
    assert shape(KNOWN[name]).parameters.total / 1e9 == pytest.approx(billions, abs=5e-4)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_bases_count_as_their_models_do(name: str) -> None:
    assert shape(KNOWN[name]).parameters.total == on_meta(KNOWN[name]).num_parameters()


ATTENTION_ONLY = ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    "lora",
    [
        Lora(r=4),
        Lora(r=4, target_modules=ATTENTION_ONLY),
        Lora(r=3, target_modules=["self_attn.o_proj", "down_proj"]),
        Lora(r=4, target_modules=r".*\.self_attn\.(q|k)_proj"),
        Lora(r=4, use_dora=True),
        Lora(r=4, target_modules=ATTENTION_ONLY, bias="lora_only"),
        Lora(r=4, target_modules=ATTENTION_ONLY, bias="all"),
        Lora(r=4, target_modules=ATTENTION_ONLY, modules_to_save=["embed_tokens", "lm_head"]),
    ],
    ids=lambda lora: f"{lora.target_modules}-{lora.bias}-{lora.use_dora}-{lora.modules_to_save}",
)
def test_adapters_have_as_many_parameters_as_pefts(lora: Lora) -> None:
    from peft import get_peft_model

    from posttrain.train.lora import lora_config

    config = {"model_type": "llama", **SIZES, "attention_bias": True, "tie_word_embeddings": False}
    model = get_peft_model(on_meta(config), lora_config(lora))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert shape(config).lora_parameters(lora) == trained


def test_a_new_model_is_planned_as_it_would_be_made() -> None:
    sizes = NewModel()
    from transformers import LlamaConfig, LlamaForCausalLM

    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=sizes.vocab_size,
            hidden_size=sizes.hidden_size,
            intermediate_size=sizes.intermediate_size,
            num_hidden_layers=sizes.num_hidden_layers,
            num_attention_heads=sizes.num_attention_heads,
            num_key_value_heads=sizes.num_key_value_heads,
            tie_word_embeddings=sizes.tie_word_embeddings,
        )
    )
    assert shape(config_of(Model(new=sizes))).parameters.total == made.num_parameters()


def test_a_configuration_is_read_from_a_folder(tmp_path: Path) -> None:
    import json

    config = {"model_type": "llama", **SIZES}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert shape(config_of(Model(base=str(tmp_path)))) == shape(config)
    (tmp_path / "config.json").write_text(json.dumps({"text_config": config}), encoding="utf-8")
    assert isinstance(shape(config_of(Model(base=str(tmp_path)))), Shape)
    (tmp_path / "config.json").write_text("not JSON", encoding="utf-8")
    with pytest.raises(UserError, match=r"has no config\.json that can be read"):
        config_of(Model(base=str(tmp_path)))


def test_what_is_not_known_is_said() -> None:
    with pytest.raises(UserError, match="'gpt_neox' is not among those"):
        shape({"model_type": "gpt_neox"})
    with pytest.raises(UserError, match="no hidden_size, num_hidden_layers"):
        shape({"model_type": "llama", "vocab_size": 8, "intermediate_size": 8, "num_attention_heads": 2})
    with pytest.raises(UserError, match="nobody/nothing cannot be fetched"):
        config_of(Model(base="nobody/nothing"))
