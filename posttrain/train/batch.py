"""The arithmetic of a batch: rows a device, processes, and the accumulation that follows."""

from __future__ import annotations

from posttrain.recipe.schema import Cpt, Training


def batch_problem(section: str, settings: Training, world_size: int) -> str | None:
    """Say why `global_batch_size` cannot be made by gradient accumulation, or return None if it can."""
    at_once = settings.per_device_train_batch_size * world_size
    if settings.global_batch_size % at_once == 0:
        return None
    below = settings.global_batch_size // at_once * at_once
    nearest = f"{below} or {below + at_once}" if below else f"{at_once}"
    processes = f"{world_size} process{'es' if world_size > 1 else ''}"
    return (
        f"{section}.global_batch_size: {settings.global_batch_size} is not a multiple of {at_once} "
        f"(per_device_train_batch_size {settings.per_device_train_batch_size} x {processes}), so it cannot be "
        f"reached by gradient accumulation; set it to {nearest}, or change the number of processes"
    )


def accumulation_steps(settings: Training, world_size: int) -> int:
    """Return the micro-batches a process adds up before a step, so that the step sees `global_batch_size` rows.

    Raises:
        ValueError: If the world size does not divide the global batch, which the stage's check finds before.
    """
    steps, rest = divmod(settings.global_batch_size, settings.per_device_train_batch_size * world_size)
    if rest:
        raise ValueError(batch_problem(type(settings).__name__.lower(), settings, world_size))
    return steps


def steps_asked(settings: Cpt) -> int | None:
    """Return how many steps a cpt section asks for by `max_steps` or `tokens`, or None where it goes by epochs."""
    if settings.max_steps > 0:
        return settings.max_steps
    if settings.tokens is None:
        return None
    return int(settings.tokens) // (settings.max_length * settings.global_batch_size)
