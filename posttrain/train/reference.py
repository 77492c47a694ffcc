"""Where DPO takes its reference log-probabilities from. Imports nothing heavy: the chain of stages depends on it."""

from __future__ import annotations

from typing import Any

from posttrain.recipe.schema import Dpo, Model

PRECOMPUTED, ADAPTER_OFF, MODEL = "precomputed", "adapter_off", "model"


def reference_kind(settings: Dpo) -> str:
    """Return `dpo.reference`, or what stands for it where the recipe leaves it out.

    An adapter can be switched off, which costs no memory and no stage; for full weights the log-probabilities are
    computed beforehand, so that no second model is loaded. A reference that is to follow the policy has to be a model.
    """
    if settings.reference is not None:
        return settings.reference
    if follows_policy(settings):
        return MODEL
    return ADAPTER_OFF if settings.lora is not None else PRECOMPUTED


def follows_policy(settings: Dpo) -> bool:
    """Say whether the reference is moved towards the policy while it trains (TR-DPO, arXiv 2404.09656)."""
    return bool(settings.trainer.get("sync_ref_model"))


def tail_weight(settings: Dpo) -> float | None:
    """Return what the tokens beyond the shorter response's length count (LD-DPO, arXiv 2409.06411); None for all of it.

    The reference's sums are made with it too, so stored ones depend on it.
    """
    value = settings.trainer.get("ld_alpha")
    return None if value is None else float(value)


def precision(settings: Dpo, model: Model) -> dict[str, str]:
    """Return in which precision policy and reference compute: weights, autocast and quantisation."""
    weights = model.dtype if settings.lora is not None else model.trainable_dtype
    return {"weights": weights, "compute": model.dtype, "quantization": settings.quantization}


def determines(settings: Dpo, model: Model, checkpoint: str, tokens: str) -> dict[str, Any]:
    """Return what reference log-probabilities follow from, as plain values.

    Args:
        settings: The `dpo` section.
        model: The `model` section.
        checkpoint: Digest of the checkpoint that is the reference.
        tokens: Digest of the pairs.
    """
    return {
        "checkpoint": checkpoint,
        "tokens": tokens,
        "ld_alpha": tail_weight(settings),
        **precision(settings, model),
    }
