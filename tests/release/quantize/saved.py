"""A folder as GPTQModel leaves it, written without GPTQModel."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def save_as_gptqmodel(target: Path, source: Path, variant: Mapping[str, Any]) -> None:
    """Save the source's weights and packed ones of no meaning, with a random path, timings and files too many."""
    target.mkdir(parents=True)
    meta = {
        "damp_percent": variant["damp_percent"],
        "quantizer": ["gptqmodel:7.6.0"],
        "offload_to_disk_path": f"/tmp/gptqmodel_{secrets.token_hex(4)}",
    }
    settings = {key: variant[key] for key in ("bits", "group_size", "desc_act")}
    settings |= {"quant_method": "gptq", "meta": meta}
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"dtype": "float64", "_name_or_path": str(source), "quantization_config": settings}
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (target / "quantize_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (target / "generation_config.json").write_text(json.dumps({"do_sample": True}), encoding="utf-8")
    (target / "quant_log.csv").write_text(f"layer,time\n0,{secrets.token_hex(4)}\n", encoding="utf-8")
    (target / "tokenizer.json").write_text("{}", encoding="utf-8")
    (target / "offload").mkdir()
    tensors = {name: tensor.double() for name, tensor in load_file(source / "model.safetensors").items()}
    tensors["model.layers.0.mlp.up_proj.scales"] = torch.ones(2, 2, dtype=torch.float16)
    tensors["model.layers.0.mlp.up_proj.qweight"] = torch.ones(2, 2, dtype=torch.int32)
    metadata = {"format": "pt", "made": secrets.token_hex(4), "by": "test"}
    save_file(tensors, str(target / "model.safetensors"), metadata=metadata)
