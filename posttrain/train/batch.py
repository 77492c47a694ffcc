"""The arithmetic of a batch: rows a device, processes, and the accumulation that follows."""

from __future__ import annotations

from posttrain.errors import UserError
from posttrain.recipe.schema import Training


def batch_problem(section: str, settings: Training, world_size: int) -> str | None:
    """Say why `global_batch_size` cannot be made on `world_size` processes, or return None if it can."""
    per_step = settings.per_device_train_batch_size * world_size
    if settings.global_batch_size % per_step == 0:
        return None
    return (
        f"{section}.global_batch_size: {settings.global_batch_size} is not a multiple of {per_step} "
        f"({settings.per_device_train_batch_size} a device x {world_size} processes); "
        f"change {section}.per_device_train_batch_size or the number of processes"
    )


def accumulation_steps(settings: Training, world_size: int) -> int:
    """Return the micro-batches a process adds up before a step, so that the step sees `global_batch_size` rows.

    Raises:
        UserError: If the world size does not divide the global batch.
    """
    problem = batch_problem("training", settings, world_size)
    if problem is not None:
        raise UserError(problem)
    return settings.global_batch_size // (settings.per_device_train_batch_size * world_size)
