"""The training section of a card: each stage as it was run, and the rows it was run on, from their manifests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.data.report.words import several
from posttrain.release.card.inputs import CardInputs, Values
from posttrain.release.card.text import NOT_MEASURED, code, number, plain, table

TITLES = {"cpt": "Pretraining", "sft": "SFT", "dpo": "DPO"}
_PACKING = {
    "bfd": "best-fit decreasing, rows kept apart",
    "wrapped": "one stream, cut",
    "none": "none",
}
_LOSS_ON = {"assistant": "the assistant's turns", "all": "every token"}


@dataclass(frozen=True)
class _Run:
    """A training stage as its manifest records it; `section` is its part of the recipe, `model` that of the model."""

    stage: str
    manifest: Values

    @property
    def section(self) -> Values:
        return dict(self.manifest["recipe"].get(self.stage) or {})

    @property
    def model(self) -> Values:
        return dict(self.manifest["recipe"].get("model") or {})

    @property
    def metrics(self) -> Values:
        return dict(self.manifest.get("metrics") or {})


Cell = Callable[[_Run], "str | None"]


def hyper_parameters(inputs: CardInputs) -> str | None:
    """Return a table with a column for each training stage, or None where the recipe trains nothing."""
    runs = [_Run(stage, inputs.manifests[stage]) for stage in inputs.stages]
    if not runs:
        return None
    lines = []
    for label, cell in _ROWS:
        cells = [cell(run) for run in runs]
        if any(found is not None for found in cells):
            lines.append([label, *(NOT_MEASURED if found is None else found for found in cells)])
    return table(["", *(TITLES[run.stage] for run in runs)], lines)


def _given(name: str) -> Cell:
    """Return the cell of a key of the recipe, where the stage has it."""
    return lambda run: _value(run.section[name]) if run.section.get(name) is not None else None


def _measured(name: str, decimals: int | None = None) -> Cell:
    """Return the cell of a figure of the manifest, where there is one."""

    def cell(run: _Run) -> str | None:
        value = run.metrics.get(name)
        if value is None:
            return None
        return _value(value) if decimals is None else f"{value:.{decimals}f}"

    return cell


def _held_out_loss(run: _Run) -> str | None:
    after, before = run.metrics.get("after/loss"), run.metrics.get("before/loss")
    if after is None:
        return None
    return f"{after:.3f}" if before is None else f"{before:.3f} → {after:.3f}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(int(value) if isinstance(value, float) and value.is_integer() and abs(value) >= 1 else value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(each) for each in value)
    return plain(value)


def _epochs(run: _Run) -> str | None:
    section = run.section
    if section.get("max_steps", -1) > 0 or section.get("tokens") is not None:
        return None  # the number of steps decided
    return _value(section["num_train_epochs"])


def _weights(run: _Run) -> str:
    lora = run.section.get("lora")
    base = ", on a base quantised to NF4" if run.section.get("quantization") == "nf4" else ""
    if lora is None:
        return f"all{base}"
    ending = "merged at the end" if lora.get("merge", True) else "kept as an adapter"
    kind = "DoRA" if lora.get("use_dora") else "LoRA"
    modules = lora.get("target_modules", "all-linear")
    on = plain(modules) if isinstance(modules, str) else several(plain(module) for module in modules)
    return f"{kind}, rank {lora['r']}, alpha {lora['alpha']}, on {on}{base}, {ending}"


def _batch(run: _Run) -> str:
    return f"{run.section['global_batch_size']:,} {'pairs' if run.stage == 'dpo' else 'rows'}"


def _optimiser(run: _Run) -> str:
    section = run.section
    betas = f"betas {number(section['adam_beta1'])} and {number(section['adam_beta2'])}"
    decay, clip = number(section["weight_decay"]), number(section["max_grad_norm"])
    return f"{code(section['optim'])}, {betas}, weight decay {decay}, gradients clipped at {clip}"


def _schedule(run: _Run) -> str:
    section = run.section
    extra = "".join(f", {plain(key)} {_value(value)}" for key, value in (section["lr_scheduler_kwargs"] or {}).items())
    return f"{plain(section['lr_scheduler_type'])}, warm-up ratio {number(section['warmup_ratio'])}{extra}"


def _preference_loss(run: _Run) -> str | None:
    if run.stage != "dpo":
        return None
    smoothing = run.section.get("label_smoothing") or 0
    extra = f", label smoothing {number(smoothing)}" if smoothing else ""
    return f"{_value(run.section['loss_type'])}{extra}"


def _named(names: Mapping[str, str], key: str) -> Cell:
    return lambda run: names.get(run.section[key], plain(run.section[key])) if key in run.section else None


def _dtypes(run: _Run) -> str:
    model = run.model
    trained = model["trainable_dtype"]
    return f"computed in {model['dtype']}, trained weights kept in {trained}"


def _processes(run: _Run) -> str | None:
    world_size = run.manifest.get("world_size")
    return None if world_size is None else number(world_size)


def _further(run: _Run) -> str | None:
    extra = run.section.get("trainer") or {}
    return ", ".join(code(f"{key}: {value}") for key, value in extra.items()) or None


_ROWS: tuple[tuple[str, Cell], ...] = (
    ("Weights trained", _weights),
    ("Epochs", _epochs),
    ("Optimiser steps", _measured("steps")),
    ("Global batch size", _batch),
    ("Sequence length, tokens", _given("max_length")),
    ("Rows or pairs", _measured("rows")),
    ("Tokens an epoch", _measured("tokens")),
    ("of these with a loss", _measured("trained_tokens")),
    ("Learning rate", _given("learning_rate")),
    ("Schedule", _schedule),
    ("Optimiser", _optimiser),
    ("Packing", _named(_PACKING, "packing")),
    ("Loss on", _named(_LOSS_ON, "loss_on")),
    ("DPO loss", _preference_loss),
    ("DPO beta", _given("beta")),
    ("Number types", _dtypes),
    ("Processes", _processes),
    ("Seed", lambda run: str(run.manifest["seed"])),
    ("Further settings of the trainer", _further),
    ("Held-out loss, before → after", _held_out_loss),
    # before the first step policy and reference are one model, and margins nothing but rounding
    ("Held-out pairs ranked rightly after it, share", _measured("after/rewards/accuracies", 3)),
    ("Held-out reward margin after it", _measured("after/rewards/margins", 3)),
)
