"""What GPTQModel saves, made into a release folder: the same bytes for the same weights, and nothing of the machine.

GPTQModel writes a random temporary path into both configurations, timings into a log, its own sampling settings into
`generation_config.json`, and the weights that it does not quantise in the dtype that it computed in.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.release.quantize.source import CONFIG, GENERATION_CONFIG, TOKENIZER_FILES, read_json

if TYPE_CHECKING:
    from posttrain.chat import Template

QUANTIZE_CONFIG = "quantize_config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = ("qweight", "qzeros", "scales", "g_idx")  # of a quantised layer
# What of `meta` says how the weights came about; the rest is how GPTQModel used the machine.
_META = (
    "act_group_aware",
    "damp_auto_increment",
    "damp_percent",
    "foem",
    "gptaq",
    "mse",
    "quantizer",
    "static_groups",
    "true_sequential",
    "uri",
)
_NOT_OURS = ("_name_or_path",)


def tidy(saved: Path, source: Path, tokenizer: Path, *, template: Template | None, stops: list[int]) -> None:
    """Put a folder that GPTQModel has saved in order.

    Args:
        saved: The folder, changed in place.
        source: The checkpoint it was made from, whose generation settings it gets.
        tokenizer: The folder of its tokenizer, whose files it gets byte for byte.
        template: A chat template to put beside the tokenizer, where that is not the tokenizer's own.
        stops: Token ids at which generation ends; none where those of the source stay.
    """
    config, of_source = read_json(saved / CONFIG), read_json(source / CONFIG)
    quantization = _settings(read_json(saved / QUANTIZE_CONFIG))
    dtype = of_source.get("dtype") or of_source.get("torch_dtype") or config.get("dtype")
    config = {key: value for key, value in config.items() if key not in _NOT_OURS}
    config["dtype"], config["quantization_config"] = dtype, quantization
    if stops:
        config["eos_token_id"] = stops[0] if len(stops) == 1 else stops
    _write(saved / CONFIG, config)
    _write(saved / QUANTIZE_CONFIG, quantization)
    _rewrite_weights(saved, dtype)
    _generation_config(saved, source, config, stops)
    for name in TOKENIZER_FILES:
        (saved / name).unlink(missing_ok=True)
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, saved / name)
    if template is not None:
        from posttrain.chat.portable import portable

        (saved / "chat_template.jinja").write_text(portable(template.text), encoding="utf-8")
    known = {CONFIG, QUANTIZE_CONFIG, GENERATION_CONFIG, INDEX, *TOKENIZER_FILES}
    for path in saved.iterdir():
        own_code = path.suffix == ".py" and (source / path.name).is_file()
        if path.name in known or path.suffix == ".safetensors" or own_code:
            path.chmod(0o644)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    meta = content.get("meta", {})
    return {**content, "meta": {key: meta[key] for key in _META if key in meta}}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _generation_config(saved: Path, source: Path, config: dict[str, Any], stops: list[int]) -> None:
    """Take the source's own, and have it stop where a turn ends."""
    content = read_json(source / GENERATION_CONFIG)
    if not content:
        keys = ("bos_token_id", "eos_token_id", "pad_token_id")
        content = {key: config[key] for key in keys if config.get(key) is not None}
    if stops:
        content["eos_token_id"] = stops
    _write(saved / GENERATION_CONFIG, content)


def _rewrite_weights(saved: Path, dtype: str | None) -> None:
    """Write each file of weights anew: tensors in order of their names, one metadata key, and in the source's dtype.

    With two keys of metadata the format's order is not fixed. Packed weights and their scales stay as they are.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    wanted = getattr(torch, dtype) if dtype is not None else None
    weight_map, total = {}, 0
    for path in sorted(saved.glob("*.safetensors")):
        tensors = {}
        with safe_open(str(path), framework="pt") as file:
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                packed = name.rpartition(".")[2] in WEIGHTS
                if wanted is not None and tensor.is_floating_point() and not packed:
                    tensor = tensor.to(wanted)
                tensors[name] = tensor.contiguous()
                weight_map[name] = path.name
                total += tensor.numel() * tensor.element_size()
        making = path.with_name(f".{path.name}")
        save_file(tensors, str(making), metadata={"format": "pt"})
        os.replace(making, path)
    index = saved / INDEX
    if index.exists():
        _write(index, {"metadata": {"total_size": total}, "weight_map": weight_map})
