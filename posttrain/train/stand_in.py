"""A tiny model in place of a recipe's own: the same architecture, random weights, a tokenizer of the package's text."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from posttrain.assets import locate
from posttrain.recipe.schema import Model, NewModel

SIZES = NewModel(
    vocab_size=600,
    hidden_size=64,  # NF4 quantises blocks of 64 weights
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=1024,
)
_DONE = "stand-in"
# Bases of the package's recipes that are no Llamas, and have no chat template; known so that nothing need be fetched.
_OTHERS = {"LumiOpen/Poro-34B": "bloom"}
# Other names that architectures have for the same sizes.
_NAMES = {
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head"),
    "num_key_value_heads": ("num_key_value_heads",),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "seq_length"),
}


def make_stand_in(model: Model, base: str | None, folder: Path, seed: int, reward: bool) -> str:
    """Write a tiny model and its tokenizer to a folder, once, and with `reward` a classifier beside it.

    Args:
        model: The section of the recipe that is to use it, with its chat template.
        base: The recipe's own base. Where it is a folder, its configuration tells the architecture; otherwise that is
            Llama.
        folder: Where to write; a reward model goes to the same name with `-reward` behind it.
        seed: Decides the weights.
        reward: Whether a reward model is needed.

    Returns:
        What it is, for the user.
    """
    said = folder / _DONE
    if not said.exists():
        shutil.rmtree(folder, ignore_errors=True)
        making = folder.with_name(f".{folder.name}-{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        text = _write(model, base, making, seed)
        (making / _DONE).write_text(text, encoding="utf-8")
        _put(making, folder)
    if reward and not (beside := folder.with_name(f"{folder.name}-reward")).exists():
        making = beside.with_name(f".{beside.name}-{os.getpid()}")
        _write_reward(folder, making, seed)
        _put(making, beside)
    return said.read_text(encoding="utf-8")


def _put(making: Path, folder: Path) -> None:
    try:
        making.rename(folder)
    except OSError:  # another process of the launch was faster
        if not folder.is_dir():
            raise
        shutil.rmtree(making)


def _write(model: Model, base: str | None, folder: Path, seed: int) -> str:
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    from posttrain.chat.template import builtin_templates
    from posttrain.train.model import new_model, save_full, save_tokenizer
    from posttrain.train.tokenizer import equip, stop_ids, train_tokenizer

    template = model.chat_template if model.chat_template in builtin_templates() else "chatml"
    texts = [Path(locate(f"builtin:text/{language}.txt")).read_text(encoding="utf-8") for language in ("en", "fi")]
    tokenizer = train_tokenizer([line for text in texts for line in text.splitlines()], SIZES.vocab_size, template)
    equipped = equip(tokenizer, Model(chat_template=template))
    config = _config(base, tokenizer)
    if config is None:
        tiny, said = new_model(SIZES, tokenizer, seed), "a tiny Llama with random weights"
    else:
        set_seed(seed)
        tiny = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        said = f"a tiny {type(tiny).__name__} with random weights"
    pad = tokenizer.pad_token_id
    save_full(tiny, folder, dtype=torch.float32, stops=stop_ids(tokenizer, equipped), pad=int(pad))
    plain = base in _OTHERS and model.chat_template == "tokenizer"
    save_tokenizer(tokenizer, None if plain else equipped, folder)
    return said


def shrink(config: Any) -> None:
    """Give a configuration the sizes of `SIZES`, the vocabulary apart, under whatever names its architecture has."""
    for name, others in _NAMES.items():
        for other in others:
            if getattr(config, other, None) is not None:
                setattr(config, other, getattr(SIZES, name))
    if getattr(config, "head_dim", None) is not None:
        config.head_dim = SIZES.hidden_size // SIZES.num_attention_heads
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[: SIZES.num_hidden_layers]


def _config(base: str | None, tokenizer: Any) -> Any:
    """Return the configuration of a base in a folder, or of one that is known, made small; None for any other."""
    from transformers import AutoConfig

    if base is not None and (Path(base).expanduser() / "config.json").is_file():
        config = AutoConfig.from_pretrained(Path(base).expanduser())
    elif base in _OTHERS:
        config = AutoConfig.for_model(_OTHERS[base])
    else:
        return None
    shrink(config)
    config.vocab_size = len(tokenizer)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, getattr(tokenizer, name))
    return config


def _write_reward(model: Path, folder: Path, seed: int) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, set_seed

    config = AutoConfig.from_pretrained(model, num_labels=1)
    set_seed(seed)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
