"""The devices that training would run on: how many there are, what they can compute in, and whether the model fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from posttrain.errors import UserError
from posttrain.preflight.findings import Finding, error, note, warning

if TYPE_CHECKING:
    from posttrain.preflight.subject import Subject

_GB = 1e9


def check(subject: Subject) -> Iterator[Finding]:
    """Check GPUs, processor and number types, of this machine or of the hardware that was named."""
    if not subject.training(to_do=True):
        return
    recipe = subject.recipe
    if recipe.model.dtype == "float16" and recipe.model.trainable_dtype == "bfloat16":
        yield error(
            "model.trainable_dtype: bfloat16 weights cannot be trained with a float16 forward pass; set "
            "model.dtype=bfloat16"
        )
    if recipe.launch.cpu:
        yield from _processor(subject)
    elif subject.hardware is not None:
        yield from _fits(subject)
    elif recipe.launch.slurm is not None:
        yield note("devices: those of the cluster's nodes were not looked at; --hardware NAME checks the memory of one")
    else:
        yield from _here(subject)


def _processor(subject: Subject) -> Iterator[Finding]:
    recipe = subject.recipe
    if recipe.model.dtype == "float16":
        yield error("model.dtype: float16 does not train on a processor; set model.dtype=float32 or bfloat16")
    if subject.hardware is not None:
        yield warning("launch.cpu: training runs on the processor, so --hardware was not looked at")
    import torch

    if torch.accelerator.is_available():
        yield warning(
            "launch.cpu: training runs on the processor, though there is a GPU; set launch.cpu=false to use it"
        )


def _here(subject: Subject) -> Iterator[Finding]:
    import torch

    recipe, processes = subject.recipe, subject.processes
    if not torch.accelerator.is_available():
        yield warning(
            "devices: there is no GPU here, so training would run on the processor; set launch.cpu=true if that is "
            "meant, or check for other devices with --hardware"
        )
        if recipe.model.dtype == "float16":
            yield error("model.dtype: float16 does not train on a processor; set model.dtype=float32 or bfloat16")
        return
    count = torch.accelerator.device_count()
    if processes > count:
        yield error(
            f"launch.num_processes: {processes} processes, and there {'is' if count == 1 else 'are'} {count} "
            f"GPU{'s' if count > 1 else ''} here; set it to {count}, start it on {processes} GPUs "
            "(launch/slurm/train.sbatch), or name those with --hardware"
        )
    if torch.cuda.is_available():
        if recipe.model.dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            yield error(
                f"model.dtype: {torch.cuda.get_device_name()} does not compute in bfloat16; set model.dtype=float16, "
                "or use a GPU of the Ampere generation or later"
            )
        free, total = torch.cuda.mem_get_info()
        yield from _memory(subject, float(free), f"{torch.cuda.get_device_name()} here, of whose {total / _GB:.1f} GB")


def _fits(subject: Subject) -> Iterator[Finding]:
    hardware = subject.hardware
    assert hardware is not None
    yield from _memory(subject, hardware.usable, f"{hardware.title}, of whose {hardware.memory / _GB:.1f} GB")


def _memory(subject: Subject, usable: float, device: str) -> Iterator[Finding]:
    """Compare the planner's estimate of each stage that is left to do with what a device has."""
    from posttrain.planning.memory import peak
    from posttrain.planning.setup import setup, strategy

    shape = subject.shape
    if shape is None:
        yield note("memory: the sizes of the model are not known, so it was not estimated; try --forward")
        return
    try:
        how = strategy(subject.recipe.launch.config, subject.processes)
    except UserError:  # the launch file has a finding of its own, or a kind of sharing that is not planned for
        yield note("memory: it cannot be estimated under this launch.config")
        return
    for name in subject.training(to_do=True):
        wanted = peak(setup(subject.recipe, name, shape, devices=subject.processes, how=how))
        text = f"{name}: about {wanted.total / _GB:.1f} GB on each of {subject.processes} x {device} "
        text += f"{usable / _GB:.1f} GB can be counted on"
        if wanted.total > usable:
            yield error(f"{text}; posttrain plan says what would make it fit")
        else:
            yield note(text)
