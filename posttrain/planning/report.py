"""The plan of a training stage as lines of text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from posttrain.planning.activations import activations
from posttrain.planning.advice import nearest_fit
from posttrain.planning.compute import Counted, cost, length
from posttrain.planning.hardware import HARDWARE, Hardware
from posttrain.planning.memory import Memory, model_states, peak
from posttrain.planning.step import Setup, Strategy
from posttrain.planning.workspace import full_logits

if TYPE_CHECKING:
    from posttrain.planning.model import Shape
    from posttrain.recipe.schema import Recipe

_TITLES: dict[Strategy, str] = {"none": "one process", "ddp": "DDP", "fsdp2": "FSDP2", "zero3": "ZeRO-3"}
_WIDTH = 12


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One training stage to report on.

    Attributes:
        setup: What it asks of each device.
        hardware: What the devices are, or None where it is not said.
        rows: What its tokenize stage counted, or None where that is not built.
        counted_by: What has to be done for the rows to be counted.
    """

    setup: Setup
    hardware: Hardware | None
    rows: Counted | None
    counted_by: str


def model_lines(name: str, shape: Shape) -> list[str]:
    """Return the lines about the model: parameters by kind."""
    counts = shape.parameters
    head = "the embedding again (tied)" if shape.tied else scaled(counts.lm_head)
    return [
        f"model {name}: {scaled(counts.total)} parameters",
        _entry(
            "of them",
            f"embedding {scaled(counts.embedding)}, attention {scaled(counts.attention)}, MLP {scaled(counts.mlp)}, "
            f"norms {scaled(counts.norm)}, LM head {head}",
        ),
    ]


def stage_lines(recipe: Recipe, asked: Asked) -> list[str]:
    """Return the plan of one stage: what is trained, memory, whether it fits and what would, time and energy."""
    setup, hardware = asked.setup, asked.hardware
    where = f" on {setup.devices} x {hardware.title}" if hardware is not None else _without_hardware(setup)
    return [
        f"{setup.stage}{where}, {_TITLES[setup.strategy]}",
        _entry("trains", _trains(setup)),
        _entry("batch", _batch(setup)),
        *_memory_lines(setup),
        *_fit_lines(setup, hardware),
        *_time_lines(recipe, asked),
    ]


def _without_hardware(setup: Setup) -> str:
    if setup.cpu:
        return " on this machine's processor" if setup.devices == 1 else f" in {setup.devices} processes on processors"
    return " on one device" if setup.devices == 1 else f" on {setup.devices} devices"


def _trains(setup: Setup) -> str:
    if setup.adapter is None and setup.strategy == "zero3" and setup.compute == 2:
        return f"all {scaled(setup.trained)} weights, in {setup.dtype} with float32 masters (DeepSpeed)"
    if setup.adapter is None:
        return f"all {scaled(setup.trained)} weights, kept in {setup.trainable_dtype}, computes in {setup.dtype}"
    base = "4-bit (NF4, double quantisation)" if setup.nf4 else setup.dtype
    return (
        f"{scaled(setup.trained)} weights of LoRA adapters (rank {setup.adapter.r}, {setup.trainable_dtype}) on frozen "
        f"{base} ones, computes in {setup.dtype}"
    )


def _batch(setup: Setup) -> str:
    unit = "pair" if setup.stage == "dpo" else "row"
    plural = "" if setup.rows == 1 else "s"
    what = f"{setup.rows} {unit}{plural} of up to {'2 x ' if setup.stage == 'dpo' else ''}{setup.length:,} tokens"
    times = f", accumulated {setup.accumulate} times" if setup.accumulate > 1 else ""
    return f"{what} on each device{times}: {setup.rows * setup.devices * setup.accumulate:,} a step"


def _memory_lines(setup: Setup) -> list[str]:
    weights, gradients, optimiser = model_states(setup)
    memory = peak(setup)
    states = weights + gradients + optimiser
    share = f" (one of {setup.shards} shards)" if setup.shards > 1 else ""
    lines = [
        _entry(
            "states",
            f"{gb(states)} on each device{share}: weights {gb(weights)}, gradients {gb(gradients)}, "
            f"{setup.optim} {gb(optimiser)}",
        )
    ]
    other = activations(replace(setup, checkpointing=not setup.checkpointing))
    without = "without checkpointing" if setup.checkpointing else "with checkpointing"
    parts = [f"states then {gb(memory.states)}"]
    if memory.reference:
        parts.append(f"DPO's reference {gb(memory.reference)}")
    working = "gathered weights and buffers" if setup.shards > 1 else "copies and buffers"
    for name, size in (("activations", memory.activations), ("logits", memory.head), (working, memory.working)):
        if size:
            parts.append(f"{name} {gb(size)}")
    lines.append(_entry("peak", f"{gb(memory.total)}, in {memory.moment}: {', '.join(parts)}"))
    lines.append(
        _entry(
            "",
            f"the forward pass keeps activations of {gb(activations(setup))}, {without} {gb(other)}; logits go by "
            f"chunks, all of them with their gradient would be {gb(full_logits(setup))}",
        )
    )
    if not setup.cpu and setup.devices > 1:
        lines.append(_entry("", "peak by strategy: " + ", ".join(_strategies(setup))))
    return lines


def _strategies(setup: Setup) -> list[str]:
    ways: Sequence[Strategy] = ("ddp",) if setup.nf4 else ("ddp", "fsdp2", "zero3")
    alone = replace(setup, strategy="none", devices=1)
    found = [("one device", peak(alone))]
    found += [(_TITLES[way], peak(replace(setup, strategy=way))) for way in ways]
    return [f"{name} {gb(memory.total)}" for name, memory in found]


def _fit_lines(setup: Setup, hardware: Hardware | None) -> list[str]:
    memory = peak(setup)
    if setup.cpu:
        return [_entry("fits", _on_this_machine(memory, setup.devices))]
    if hardware is None:
        fitting = [each.title for each in HARDWARE.values() if memory.total <= each.usable]
        every = ", ".join(each.title for each in HARDWARE.values())
        found = f"any of {every}" if len(fitting) == len(HARDWARE) else ", ".join(fitting) or f"NONE of {every}"
        return [_entry("fits", f"{found} (say which with launch.hardware or --hardware)")]
    room = f"{gb(hardware.usable)} usable of {gb(hardware.memory)}"
    if memory.total <= hardware.usable:
        return [_entry("fits", f"yes, {gb(memory.total)} in {room}")]
    lines = [_entry("fits", f"NO: {gb(memory.total)} do not go into {room}")]
    nearest = nearest_fit(setup, hardware)
    if nearest is None:
        return [*lines, _entry("", "nor with checkpointing, smaller batches, sharding, more devices or LoRA together")]
    overrides, _, less = nearest
    return [*lines, _entry("", f"it fits, in {gb(less.total)}, with: {overrides}")]


def _on_this_machine(memory: Memory, processes: int) -> str:
    needed = memory.total * processes
    text = f"{gb(needed)} beside the {'process' if processes == 1 else 'processes'} and libraries (0.5 GB each)"
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    enough = "yes" if needed + 0.5e9 * processes < there else "NO"
    return f"{enough}, {text}; this machine has {gb(there)}"


def _time_lines(recipe: Recipe, asked: Asked) -> list[str]:
    setup, hardware = asked.setup, asked.hardware
    long = length(recipe, setup.stage, setup, asked.rows)
    if long.steps is None:
        lines = [_entry("steps", f"known once {asked.counted_by}; a full step has {scaled(long.step_tokens)} tokens")]
    else:
        assert long.tokens is not None
        lines = [_entry("steps", f"{long.steps:,}, {scaled(long.tokens)} tokens ({long.why})")]
    if hardware is None:
        return lines
    takes = cost(setup, long, hardware)
    mfu = "" if abs(takes.mfu - takes.used) < 5e-4 else f", which is {takes.mfu:.0%} MFU: the rest is computed anew"
    lines.append(
        _entry(
            "assumed",
            f"{takes.used:.0%} of {hardware.peak / 1e12:,.0f} TFLOP/s used{mfu}; {hardware.watts:,.0f} W a device",
        )
    )
    step = f"{takes.flops / 1e15:,.2f} PFLOP and {duration(takes.seconds)} a step"
    if takes.hours is None or takes.kwh is None:
        return [*lines, _entry("time", f"{step}, {duration(takes.seconds * 1000)} for 1,000 steps")]
    return [
        *lines,
        _entry(
            "time",
            f"{duration(takes.hours * 3600)} ({takes.hours * setup.devices:,.1f} device hours), "
            f"{_energy(takes.kwh)}; {step}",
        ),
    ]


def _entry(name: str, text: str) -> str:
    return f"  {name:<{_WIDTH}}{text}"


def _energy(kwh: float) -> str:
    return f"{kwh / 1000:,.1f} MWh" if kwh >= 1000 else f"{kwh:,.1f} kWh"


def gb(size: float) -> str:
    """Return a size in GB of 10^9 bytes."""
    return f"{size / 1e9:,.1f} GB" if size >= 9.95e7 else f"{size / 1e6:,.1f} MB"


def scaled(number: float) -> str:
    """Return a number in thousands, millions, billions (B) or trillions (T)."""
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:,.2f}{unit}"
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes, hours or days."""
    for limit, factor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / factor:,.1f} {unit}"
    return f"{seconds / 86400:,.1f} days"
