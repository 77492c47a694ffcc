"""LoRA: making, continuing, saving and merging adapters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.recipe.schema import Lora, Model

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

ADAPTER = "adapter"  # the folder, inside a merged checkpoint, of the adapter that was merged


def lora_config(settings: Lora) -> LoraConfig:
    """Return PEFT's configuration for the recipe's `lora` section."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        modules_to_save=settings.modules_to_save,
        use_dora=settings.use_dora,
        use_rslora=settings.use_rslora,
        bias=settings.bias,
    )


def load_adapter(base: PreTrainedModel, folder: Path, *, trainable: bool) -> PeftModel:
    """Put a saved adapter onto its base."""
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(folder), is_trainable=trainable)


def save_adapter(model: PeftModel, folder: Path, base_name: str, state: dict[str, torch.Tensor] | None = None) -> None:
    """Save the trained adapter, and under which name its base is found.

    The base is recorded as the recipe names it, not as the path it had on this machine.
    """
    model.save_pretrained(str(folder), selected_adapters=["default"], state_dict=state)
    readme = folder / "README.md"  # PEFT's template of a card, which says nothing about this adapter
    readme.unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base_name
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()  # PEFT keeps them as a set, whose order changes from run to run
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """Return a model's logits on one row, float32 of shape (1, length, vocabulary)."""
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits.float()


def merge_adapter(
    base: str | Path,
    adapter: Path,
    settings: Model,
    probe: Sequence[int],
) -> tuple[PreTrainedModel, float]:
    """Merge an adapter into its unquantised base, in float32 on the CPU.

    Args:
        base: The folder or hub id of the base.
        adapter: The folder of the adapter.
        settings: The recipe's model section.
        probe: Token ids on which the merged model is compared with base and adapter apart.

    Returns:
        The merged model in float32, and the largest absolute difference in logits that merging made.
    """
    from posttrain.train.model import load_model

    model = load_model(base, settings, dtype="float32")
    apart = load_adapter(model, adapter, trainable=False).eval()
    before = logits(apart, probe)
    merged = apart.merge_and_unload()
    return merged, float((logits(merged, probe) - before).abs().max())
