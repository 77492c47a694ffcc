"""What can be known to be wrong before a stage is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.assets import locate

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe
    from posttrain.stages.graph import Stage


def training(section: str) -> Callable[[Recipe, int], list[str]]:
    """Return the checks of a training section: of its batch, launch, trackers, model folder and, for SFT, template."""

    def check(recipe: Recipe, world_size: int) -> list[str]:
        from posttrain.train.batch import batch_problem
        from posttrain.train.preflight import launch_problems, model_problems, template_problems, tracker_problems

        problem = batch_problem(section, getattr(recipe, section), world_size)
        found = [] if problem is None else [problem]
        found += launch_problems(recipe) + tracker_problems(recipe) + model_problems(recipe)
        return found + template_problems(recipe) if section == "sft" else found

    return check


def local_model(recipe: Recipe, world_size: int) -> list[str]:
    """Check the launch file and the model's folder."""
    from posttrain.train.preflight import launch_problems, model_problems

    return launch_problems(recipe) + model_problems(recipe)


def chat_template(recipe: Recipe, world_size: int) -> list[str]:
    """Check that the chat template can be used for SFT."""
    from posttrain.train.preflight import template_problems

    return template_problems(recipe)


def readable_sources(recipe: Recipe, world_size: int) -> list[str]:
    """Check that what the data's entries name holds files that can be read; what is missing is found elsewhere."""
    from posttrain.data.files import check_source_exists
    from posttrain.data.sources import entry_options

    found = []
    for name in ("sft", "preference"):
        for index, entry in enumerate(getattr(recipe.data, name)):
            options = entry_options(entry)
            if options.source != "generated" and Path(locate(options.path)).expanduser().exists():
                found += [f"data.{name}.{index}.path: {problem}" for problem in check_source_exists(options)]
    return found


def missing_files(stages: Sequence[Stage], recipe: Recipe) -> list[str]:
    """Return a problem for each file or folder that the recipe names and that is not there."""
    return [problem for stage in stages for file in stage.files(recipe) if (problem := file.missing())]


def output_problems(recipe: Recipe) -> list[str]:
    """Say whether something that is no folder is where the output goes."""
    output = Path(recipe.output_dir)
    there = next(path for path in (output, *output.parents) if path.exists())
    if there.is_dir():
        return []
    return [f"output_dir: {there} is a file, so nothing can be written to {output}; choose another output_dir=..."]


def preconditions(stages: Sequence[Stage], recipe: Recipe, world_size: int) -> list[str]:
    """Return what the stages themselves have to say against being built in so many processes."""
    return [problem for stage in stages for problem in stage.check(recipe, world_size)]
