"""From a recipe to what its training stages ask of each device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from posttrain.assets import read_launch_file
from posttrain.errors import UserError
from posttrain.planning.model import Shape
from posttrain.planning.step import Adapter, Setup, Strategy
from posttrain.train.reference import ADAPTER_OFF, MODEL, reference_kind

if TYPE_CHECKING:
    from posttrain.recipe.schema import Lora, Recipe

TRAINING = ("cpt", "sft", "dpo")


def strategy(config: str | None, processes: int) -> Strategy:
    """Return how processes share the work under an accelerate configuration file; without one they are DDP.

    Raises:
        UserError: The file cannot be read, or has a way of sharing that is not planned for.
    """
    if config is None:
        return "ddp" if processes > 1 else "none"
    content = read_launch_file(config)
    kind = str(content.get("distributed_type", "NO"))
    if kind == "FSDP":
        return "fsdp2"
    if kind == "DEEPSPEED":
        stage = (content.get("deepspeed_config") or {}).get("zero_stage", 3)
        if stage != 3:
            raise UserError(f"launch.config: {config}: memory under ZeRO stage {stage} is not planned; only stage 3 is")
        return "zero3"
    return "ddp" if processes > 1 else "none"


def adapter(lora: Lora | None, shape: Shape) -> Adapter | None:
    """Return what LoRA takes, or None where all weights are trained."""
    if lora is None:
        return None
    return Adapter(
        r=lora.r,
        dropout=lora.dropout,
        names=tuple(shape.adapted(lora)),
        parameters=shape.lora_parameters(lora),
    )


def setup(recipe: Recipe, stage: str, shape: Shape, *, devices: int, how: Strategy, cpu: bool | None = None) -> Setup:
    """Return what one training stage asks of each device.

    Args:
        recipe: The recipe.
        stage: `cpt`, `sft` or `dpo`; the recipe has that section.
        shape: Of its model.
        devices: How many train together.
        how: How they share the work.
        cpu: Whether they are processors; by default as the recipe says.
    """
    section: Any = getattr(recipe, stage)
    lora = adapter(getattr(section, "lora", None), shape)
    reference = reference_kind(recipe.dpo) if stage == "dpo" and recipe.dpo is not None else ""
    per_step = section.per_device_train_batch_size * devices
    return Setup(
        shape=shape,
        stage=stage,
        rows=section.per_device_train_batch_size,
        length=section.max_length,
        accumulate=max(1, section.global_batch_size // per_step),
        dtype=recipe.model.dtype,
        trainable_dtype=recipe.model.trainable_dtype,
        strategy=how,
        devices=devices,
        cpu=recipe.launch.cpu if cpu is None else cpu,
        adapter=lora,
        nf4=getattr(section, "quantization", "none") == "nf4",
        optim=section.optim,
        checkpointing=section.gradient_checkpointing,
        attention=recipe.model.attn_implementation or "sdpa",
        packed=getattr(section, "packing", "") == "bfd",
        reference=reference == MODEL,
        eval_rows=section.per_device_eval_batch_size if _holds_out(recipe, stage) else 0,
        forward_reference=reference in (MODEL, ADAPTER_OFF),
    )


def _holds_out(recipe: Recipe, stage: str) -> bool:
    if stage == "cpt":
        return recipe.cpt is not None and recipe.cpt.validation_fraction > 0
    return recipe.data.validation.fraction > 0
