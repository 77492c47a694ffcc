"""How long a training stage takes: rows, tokens, steps, floating-point operations, hours and energy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.planning.hardware import Hardware, used_share

if TYPE_CHECKING:
    from posttrain.planning.step import Setup
    from posttrain.recipe.schema import Recipe

# The stage whose manifest counts the rows that a training stage reads. Pretraining on texts without shares has none.
COUNTED = {"sft": "tokenize-sft", "dpo": "tokenize-preference", "cpt": "tokenize-cpt"}


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What a tokenize stage wrote: `rows` as the trainer sees them, packed ones, and the tokens in them."""

    rows: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a stage trains.

    Attributes:
        steps: Optimiser steps, or None where they follow from rows that are not there yet.
        step_tokens: Tokens that a step sees over all devices, as many as fit if it is not known how many do.
        why: Where the figure comes from, or what is missing.
    """

    steps: int | None
    step_tokens: float
    why: str

    @property
    def tokens(self) -> float | None:
        """Tokens seen in all."""
        return None if self.steps is None else self.steps * self.step_tokens


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a stage takes on one kind of hardware.

    Attributes:
        flops: Of a step, over all devices, with what checkpointing computes anew.
        seconds: Of a step.
        used: Share of the peak assumed, recomputation included.
        mfu: The same without recomputation, counted as the training's log does.
        hours: Of the stage, or None where its steps are not known; without evaluation and saving.
        kwh: Drawn by the devices alone, in the same time.
    """

    flops: float
    seconds: float
    used: float
    mfu: float
    hours: float | None
    kwh: float | None


def counted(folder: Path) -> Counted | None:
    """Return what the manifest of a tokenize stage counts, or None where there is none that says."""
    from posttrain.stages.manifest import Manifest

    try:
        metrics = Manifest.read(folder).metrics
    except (OSError, ValueError):
        return None
    rows, tokens = metrics.get("blocks", metrics.get("rows")), metrics.get("tokens")
    return Counted(rows=rows, tokens=tokens) if isinstance(rows, int) and isinstance(tokens, int) else None


def length(recipe: Recipe, stage: str, setup: Setup, rows: Counted | None) -> Length:
    """Return how long a stage trains.

    Args:
        recipe: The recipe.
        stage: `cpt`, `sft` or `dpo`.
        setup: What it asks of each device.
        rows: What its tokenize stage counted, if that is built.
    """
    section: Any = getattr(recipe, stage)
    per_row = section.max_length * (2 if stage == "dpo" else 1)
    step_rows = section.global_batch_size
    full = float(step_rows * per_row)
    wanted = getattr(section, "tokens", None)
    if rows is not None:
        each = rows.tokens / max(rows.rows, 1)
        batches = math.ceil(rows.rows / (setup.rows * setup.devices))
        per_epoch = math.ceil(batches / setup.accumulate)  # as transformers counts, a last smaller step included
        steps = math.ceil(section.num_train_epochs * per_epoch)
        # All tokens of an epoch, so that a last step that is not full counts as what it is.
        spread = rows.tokens / per_epoch
        if section.max_steps > 0:
            return Length(steps=section.max_steps, step_tokens=spread, why="max_steps")
        if wanted is None:
            epochs = f"{section.num_train_epochs:g} epoch{'' if section.num_train_epochs == 1 else 's'}"
            what = "pairs" if stage == "dpo" else "rows"
            why = f"{epochs} of {rows.rows:,} {what} of {each:,.0f} tokens on average"
            return Length(steps=steps, step_tokens=spread, why=why)
    if section.max_steps > 0:
        return Length(steps=section.max_steps, step_tokens=full, why="max_steps, every row full")
    if wanted is not None:
        return Length(steps=math.ceil(wanted / full), step_tokens=full, why=f"{wanted:g} tokens as the recipe says")
    return Length(steps=None, step_tokens=full, why="")


def step_flops(setup: Setup, tokens: float) -> tuple[float, float]:
    """Return the floating-point operations of a step over all devices, with and without recomputation.

    Two a parameter and token forward, and four backward: two for the gradients of the activations and two for those of
    the weights (6ND; Kaplan et al. 2020, arXiv 2001.08361). Frozen weights have none of the latter (4ND). Attention's
    own products add 4 x layers x width x length forward and twice that backward (PaLM, appendix B, arXiv 2204.02311,
    the causal half not taken off). Checkpointing repeats the forward pass of the layers. A reference that is not
    precomputed adds a forward pass.

    Args:
        setup: What the stage asks of each device.
        tokens: In a step.
    """
    shape = setup.shape
    matrices = 2.0 * shape.matmul_parameters
    attention = 4.0 * shape.layers * shape.queries * setup.length
    forward = matrices + attention
    trained = matrices if setup.adapter is None else 2.0 * setup.adapter.parameters
    backward = matrices + trained + 2 * attention
    if setup.adapter is not None:
        forward += 2.0 * setup.adapter.parameters
    reference = forward if setup.stage == "dpo" and setup.forward_reference else 0.0
    again = 2.0 * shape.parameters.blocks + attention if setup.checkpointing else 0.0
    own = (forward + backward + reference) * tokens
    return own + again * tokens, own


def cost(setup: Setup, long: Length, hardware: Hardware) -> Cost:
    """Return what a stage takes on a kind of hardware."""
    flops, own = step_flops(setup, long.step_tokens)
    used = used_share(hardware, setup)
    seconds = flops / (setup.devices * hardware.peak * used)
    hours = None if long.steps is None else long.steps * seconds / 3600
    return Cost(
        flops=flops,
        seconds=seconds,
        used=used,
        mfu=used * own / flops,
        hours=hours,
        kwh=None if hours is None else hours * setup.devices * hardware.watts / 1000,
    )
