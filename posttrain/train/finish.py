"""The end of a training stage: what was trained becomes a checkpoint that loads by itself, and gives the same."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.recipe.schema import Lora, Model
from posttrain.train.lora import ADAPTER, load_adapter, logits, merge_adapter, save_adapter
from posttrain.train.model import load_model, save_full, save_tokenizer
from posttrain.train.sharding import gather, load_whole_again
from posttrain.train.tokenizer import stop_ids

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from posttrain.chat import Template

# How far the logits of what was saved may be from those of what was trained: the norm of their difference over the norm
# of the latter. In half precision the one computes in other batches and kernels than the other, and was rounded once
# more. A weight that is not what was trained, or of another process's shard, makes differences near 1.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.02}
_ROW = 128  # tokens of the row that is compared


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

    The main process then loads what it wrote and compares: the weights must be equal, and the logits on a row within
    `TOLERANCE`. For a quantised base only the adapter's weights are, because the base is saved unquantised.

    Args:
        trainer: The trainer, whose model is given up.
        folder: Where the checkpoint goes; the main process writes it.
        model: The recipe's model section; its dtype is that of the saved weights.
        lora: The recipe's LoRA section, or None for full weights.
        base: Where the model under the adapter is.
        base_name: How an adapter names that model.
        tokenizer: The tokenizer.
        template: The chat template, or None for a base model.
        probe: Token ids of a row, on which merging and loading are checked; empty for a row of any ids.

    Returns:
        `reload_difference`, see `TOLERANCE`, and the largest logit differences of merging and of saving in the recipe's
        dtype, if there was a merge.

    Raises:
        RuntimeError: If what was saved is not what was trained.
    """
    import torch

    model = replace(model, attn_implementation=None)  # from here on it runs on the CPU, where not every kernel does
    dtype = getattr(torch, model.dtype)
    row = list(probe[:_ROW]) or list(range(min(_ROW, len(tokenizer))))
    expected = _trained_logits(trainer, row)
    main = trainer.is_world_process_zero()
    trained = trainer.accelerator.unwrap_model(trainer.model)
    state = None
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        state = gather(trained, keep=main, trained_only=lora is not None, dtype=dtype if lora is None else None)
    if not main:
        return {}
    load_whole_again()
    known = trained.generation_config.eos_token_id
    stops = stop_ids(tokenizer, template, known) if template is not None else [int(tokenizer.eos_token_id)]
    pad = int(tokenizer.pad_token_id)
    save_tokenizer(tokenizer, template, folder)
    if lora is None:
        save_full(trained, folder, dtype=dtype, stops=stops, pad=pad, state=state)
        weights = state if state is not None else dict(trained.named_parameters())
        saved = load_model(folder, model, dtype=model.dtype)
        _require_equal(weights, dict(saved.named_parameters()), folder)
        return {"reload_difference": _require_close(expected, saved, row, model.dtype, folder)}
    adapter = folder / ADAPTER if lora.merge else folder
    save_adapter(trained, adapter, base_name, state)
    _require_equal(_adapter_weights(trained, state), _read_adapter(adapter), adapter)
    quantised = getattr(trained, "is_loaded_in_4bit", False) or hasattr(trained.config, "quantization_config")
    del trained
    trainer.model = trainer.model_wrapped = None
    gc.collect()
    if not lora.merge:
        if quantised:
            return {}
        apart = load_adapter(load_model(base, model, dtype=model.dtype), adapter, trainable=False)
        return {"reload_difference": _require_close(expected, apart, row, model.dtype, folder)}
    merged, difference = merge_adapter(base, adapter, model, probe)
    figures = {"merge_logit_difference": difference}
    exact = logits(merged, probe)
    save_full(merged, folder, dtype=dtype, stops=stops, pad=pad)
    del merged
    gc.collect()
    saved = load_model(folder, model, dtype="float32")
    figures["saved_logit_difference"] = float((logits(saved, probe) - exact).abs().max())
    if not quantised:
        figures["reload_difference"] = _require_close(expected, saved, row, model.dtype, folder)
    return figures


def _trained_logits(trainer: Any, row: Sequence[int]) -> torch.Tensor:
    """Return the logits of the model as it is trained, float32 on the CPU; every process must call it."""
    import torch

    model = trainer.model_wrapped
    model.eval()
    ids = torch.tensor([list(row)], device=trainer.accelerator.device)
    with torch.no_grad(), trainer.accelerator.autocast():
        return model(input_ids=ids, use_cache=False).logits.float().cpu()


def _require_close(expected: torch.Tensor, saved: Any, row: Sequence[int], dtype: str, folder: Path) -> float:
    found = logits(saved.eval(), row)
    difference = float((found - expected).norm() / expected.norm())
    if not difference <= TOLERANCE[dtype]:  # also where it is not a number
        raise RuntimeError(
            f"the checkpoint in {folder} does not give what was trained: on a row of {len(row)} tokens its logits "
            f"differ by {difference:.2%} of their size, and {TOLERANCE[dtype]:.2%} is allowed in {dtype}; it is not "
            "put in place"
        )
    return difference


def _require_equal(trained: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Compare each weight that was trained with the one of its name that was saved, in the saved one's dtype."""
    import torch

    missing = trained.keys() - saved.keys()
    for name in trained.keys() & saved.keys():
        value = trained[name].detach().to("cpu", saved[name].dtype)
        if value.shape != saved[name].shape or not torch.equal(value, saved[name].detach()):
            missing.add(name)
    if missing:
        raise RuntimeError(
            f"the checkpoint in {folder} does not hold what was trained: {len(missing)} of {len(trained)} weights "
            f"differ, the first is {min(missing)}; it is not put in place"
        )


def _adapter_weights(trained: Any, state: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(trained, state_dict=state, adapter_name="default"))


def _read_adapter(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(str(folder / "adapter_model.safetensors"))
