"""How much the stages that are left will write, and how much room there is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from posttrain.preflight.findings import Finding, error, note, warning

if TYPE_CHECKING:
    from posttrain.planning.model import Shape
    from posttrain.preflight.subject import Subject
    from posttrain.recipe.schema import Recipe, Training
    from posttrain.recipe.schema_quantize import Variant

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_GB = 1e9
_AFTER = ("quantize", "release")


def check(subject: Subject) -> Iterator[Finding]:
    """Compare the most that is on the disk at once, beyond what is there already, with what is free."""
    place = next(path for path in (subject.output, *subject.output.parents) if path.exists())
    if not place.is_dir():  # told by the stages' own checks
        return
    if not os.access(place, os.W_OK):
        yield error(f"output_dir: {place} cannot be written to; choose another output_dir=...")
    todo = subject.training(to_do=True)
    after = [name for name in _AFTER if getattr(subject.recipe, name) is not None and subject.complete(name) is None]
    shape = subject.shape
    free = shutil.disk_usage(place).free
    if not todo and not after:
        return
    if shape is None:
        yield note(
            f"disk: the sizes of the model are not known, so the need was not estimated; {free / _GB:,.0f} GB are free"
        )
        return
    most, stage = needed(subject.recipe, shape, todo, after)
    text = (
        f"disk: about {most / _GB:,.1f} GB are needed at most (in {stage}) and {free / _GB:,.1f} GB are free at {place}"
    )
    if most > free:
        # Devices that are named are elsewhere, and so perhaps is their disk.
        short = error if subject.hardware is None else warning
        yield short(f"{text}; make room, choose another output_dir=..., or {_lower(stage)}")
    else:
        yield note(text)


def _lower(stage: str) -> str:
    settings = {"quantize": "list fewer variants in quantize.variants", "release": "set release.checkpoints"}
    return settings.get(stage, f"lower {stage}.save_total_limit")


def needed(recipe: Recipe, shape: Shape, todo: dict[str, Training], after: Collection[str] = ()) -> tuple[int, str]:
    """Return the most bytes on the disk at once, and in which stage.

    A training stage has `save_total_limit` checkpoints and, while the next is written, one more; they go when it is
    complete. What it leaves stays: the whole model in the recipe's dtype, or an adapter, or both. A release is copies.

    Args:
        recipe: The recipe.
        shape: Of its model.
        todo: The training stages that are left, in order.
        after: Which of `quantize` and `release` are left.
    """
    finished, most, where = 0, 0, ""
    for name, section in todo.items():
        each, final = checkpoint_bytes(recipe, shape, section), final_bytes(recipe, shape, section)
        during = finished + max(each * (section.save_total_limit + 1), each + final)
        if during > most:
            most, where = during, name
        finished += final
    for name in after:
        finished += variants_bytes(recipe, shape) if name == "quantize" else released_bytes(recipe, shape)
        if finished > most:
            most, where = finished, name
    return most, where


def checkpoint_bytes(recipe: Recipe, shape: Shape, section: Training) -> int:
    """Return the bytes of a checkpoint while training: trained weights and the state of the optimiser."""
    lora = getattr(section, "lora", None)
    trained = shape.parameters.total if lora is None else shape.lora_parameters(lora)
    weight = _BYTES[recipe.model.trainable_dtype]
    name = section.optim
    if "8bit" in name:
        state = 1.0 if "lion" in name else 2.0
    else:
        state = float(weight if name.startswith(("sgd", "lion", "paged_lion", "adagrad", "rmsprop")) else 2 * weight)
    return int(trained * (weight + state))


def final_bytes(recipe: Recipe, shape: Shape, section: Training) -> int:
    """Return the bytes of what a stage leaves."""
    lora = getattr(section, "lora", None)
    whole = shape.parameters.total * _BYTES[recipe.model.dtype]
    if lora is None:
        return whole
    adapter = shape.lora_parameters(lora) * _BYTES[recipe.model.trainable_dtype]
    return adapter + (whole if lora.merge else 0)


def variant_bytes(recipe: Recipe, shape: Shape, variant: Variant) -> int:
    """Return the bytes of a quantised variant: packed layers, with a scale of 16 bits and a zero point for each group.

    The embeddings and the LM head stay in the recipe's dtype, and so do the norms, which are too few to matter.
    """
    embeddings = shape.vocab * shape.hidden * (1 if shape.tied else 2)
    groups = (16 + variant.bits) / variant.group_size if variant.group_size > 0 else 0.0
    packed = (shape.parameters.total - embeddings) * (variant.bits + groups) / 8
    return int(packed) + embeddings * _BYTES[recipe.model.dtype]


def variants_bytes(recipe: Recipe, shape: Shape, only: Collection[str] | None = None) -> int:
    """Return the bytes of the variants that a recipe lists, or of those with some names."""
    variants = recipe.quantize.variants if recipe.quantize is not None else []
    return sum(variant_bytes(recipe, shape, each) for each in variants if only is None or each.name in only)


def released_bytes(recipe: Recipe, shape: Shape) -> int:
    """Return the bytes of the model files that a release copies."""
    from posttrain.release.checkpoints import planned

    asked = recipe.release.checkpoints if recipe.release is not None else None
    whole = len(planned(recipe)) * shape.parameters.total * _BYTES[recipe.model.dtype]
    return whole + variants_bytes(recipe, shape, asked)
