"""The plans of all training stages of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from posttrain.errors import UserError
from posttrain.planning.compute import COUNTED, counted
from posttrain.planning.hardware import HARDWARE, named
from posttrain.planning.model import config_of, shape
from posttrain.planning.report import Asked, model_lines, stage_lines
from posttrain.planning.setup import TRAINING, setup, strategy

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe
    from posttrain.stages.status import StageStatus


def device_count(recipe: Recipe) -> int:
    """Return how many devices train together: those of the Slurm job, or the processes of the launch."""
    from posttrain.stages import launch

    slurm = recipe.launch.slurm
    return slurm.nodes * slurm.gpus_per_node if slurm is not None else launch.plan(recipe).processes


def plan_training(
    recipe: Recipe, statuses: Sequence[StageStatus], hardware: str | None = None, devices: int | None = None
) -> list[str]:
    """Return the plan of every training stage as lines, with an empty one before each.

    A model whose configuration cannot be had, or whose architecture is not known, is said to be so in a line.

    Args:
        recipe: The recipe.
        statuses: What there is of its stages; rows are counted of those that are complete.
        hardware: Name of the devices, instead of the recipe's `launch.hardware`.
        devices: How many, instead of those of the recipe's launch.

    Raises:
        UserError: There is no such hardware, or the launch configuration cannot be read.
    """
    stages = [name for name in TRAINING if getattr(recipe, name) is not None]
    device = named(hardware) if hardware is not None else None
    if not stages:
        return []
    if device is None and recipe.launch.hardware is not None and not recipe.launch.cpu:
        device = HARDWARE[recipe.launch.hardware]
    devices = devices or device_count(recipe)
    how = strategy(recipe.launch.config, devices)
    try:
        sizes = shape(config_of(recipe.model))
    except UserError as error:
        return ["", f"memory and time of the training are not planned: {error}"]
    name = recipe.model.base or "made new"
    lines = ["", *model_lines(name, sizes)]
    complete = {status.stage.name: status.folder for status in statuses if status.state == "reuse"}
    names = [status.stage.name for status in statuses]
    for stage in stages:
        counter = COUNTED[stage]
        folder = complete.get(counter)
        asked = Asked(
            setup=setup(recipe, stage, sizes, devices=devices, how=how, cpu=recipe.launch.cpu and device is None),
            hardware=device,
            rows=counted(folder) if folder is not None else None,
            counted_by=f"{counter} is built" if counter in names else "the text has been read",
        )
        lines += ["", *stage_lines(recipe, asked)]
    return [*lines, ""]
