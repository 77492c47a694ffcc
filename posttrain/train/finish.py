"""The end of a training stage: what was trained becomes a checkpoint that loads by itself."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.recipe.schema import Lora, Model
from posttrain.train.lora import ADAPTER, logits, merge_adapter, save_adapter
from posttrain.train.model import load_model, save_full, save_tokenizer
from posttrain.train.tokenizer import stop_ids

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from posttrain.chat import Template


def _gathered(trainer: Any) -> dict[str, torch.Tensor] | None:
    """Return the whole state where the processes hold shards of it, else None; every process must call it."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return trainer.accelerator.get_state_dict(trainer.model_wrapped)  # type: ignore[no-any-return]
    return None


def save_checkpoint(
    trainer: Any,
    folder: Path,
    *,
    model: Model,
    lora: Lora | None,
    base: str | Path,
    base_name: str,
    tokenizer: PreTrainedTokenizerBase,
    template: Template | None,
    probe: Sequence[int],
) -> dict[str, float]:
    """Save what was trained: full weights, a merged full model, or an adapter. Every process must call it.

    Args:
        trainer: The trainer, whose model is given up.
        folder: Where the checkpoint goes; the main process writes it.
        model: The recipe's model section; its dtype is that of the saved weights.
        lora: The recipe's LoRA section, or None for full weights.
        base: Where the model under the adapter is.
        base_name: How an adapter names that model.
        template: The chat template, or None for a base model.
        probe: Token ids of a row, on which merging is checked.

    Returns:
        The largest logit differences of merging and of saving in the recipe's dtype, if there was a merge.
    """
    import torch

    state = _gathered(trainer)
    if not trainer.is_world_process_zero():
        return {}
    dtype = getattr(torch, model.dtype)
    trained = trainer.accelerator.unwrap_model(trainer.model)
    known = trained.generation_config.eos_token_id
    stops = stop_ids(tokenizer, template, known) if template is not None else [int(tokenizer.eos_token_id)]
    pad = int(tokenizer.pad_token_id)
    save_tokenizer(tokenizer, template, folder)
    if lora is None:
        save_full(trained, folder, dtype=dtype, stops=stops, pad=pad, state=state)
        return {}
    if not lora.merge:
        save_adapter(trained, folder, base_name, state)
        return {}
    save_adapter(trained, folder / ADAPTER, base_name, state)
    del trained
    trainer.model = trainer.model_wrapped = None
    gc.collect()
    merged, difference = merge_adapter(base, folder / ADAPTER, model, probe)
    expected = logits(merged, probe)
    save_full(merged, folder, dtype=dtype, stops=stops, pad=pad)
    del merged
    gc.collect()
    saved = logits(load_model(folder, model, dtype="float32"), probe)
    return {"merge_logit_difference": difference, "saved_logit_difference": float((saved - expected).abs().max())}
