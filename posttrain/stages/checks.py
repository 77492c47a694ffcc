"""What can be known to be wrong before a stage is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.assets import locate

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe
    from posttrain.stages.graph import Stage


def global_batch(section: str) -> Callable[[Recipe, int], list[str]]:
    """Return the check that gradient accumulation comes out whole in a training section."""

    def check(recipe: Recipe, world_size: int) -> list[str]:
        settings = getattr(recipe, section)
        at_once = settings.per_device_train_batch_size * world_size
        if settings.global_batch_size % at_once == 0:
            return []
        below = settings.global_batch_size // at_once * at_once
        nearest = f"{below} or {below + at_once}" if below else f"{at_once}"
        processes = f"{world_size} process{'es' if world_size > 1 else ''}"
        problem = (
            f"{section}.global_batch_size: {settings.global_batch_size} is not a multiple of {at_once} "
            f"(per_device_train_batch_size {settings.per_device_train_batch_size} x {processes}), so it cannot be "
            f"reached by gradient accumulation; set it to {nearest}, or change the number of processes"
        )
        return [problem]

    return check


def readable_sources(recipe: Recipe, world_size: int) -> list[str]:
    """Check that what the data's entries name holds files that can be read; what is missing is found elsewhere."""
    from posttrain.data.files import check_source_exists
    from posttrain.data.sources import entry_options

    found = []
    for name in ("sft", "preference"):
        for index, entry in enumerate(getattr(recipe.data, name)):
            options = entry_options(entry)
            if Path(locate(options.path)).expanduser().exists():
                found += [f"data.{name}.{index}.path: {problem}" for problem in check_source_exists(options)]
    return found


def missing_files(stages: Sequence[Stage], recipe: Recipe) -> list[str]:
    """Return a problem for each file or folder that the recipe names and that is not there."""
    return [problem for stage in stages for file in stage.files(recipe) if (problem := file.missing())]


def preconditions(stages: Sequence[Stage], recipe: Recipe, world_size: int) -> list[str]:
    """Return what the stages themselves have to say against being built in so many processes."""
    return [problem for stage in stages for problem in stage.check(recipe, world_size)]
