"""`posttrain eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from posttrain.cli.options import ForceOption, OverridesArgument, RecipeArgument, SmokeOption
from posttrain.errors import UserError

RescoreOption = Annotated[
    bool,
    typer.Option(
        "--rescore",
        help="Compute the scores again from the answers that were kept, and say whether they are the same; runs no "
        "model and writes nothing.",
    ),
]


def evaluate(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    force: ForceOption = None,
    smoke: SmokeOption = False,
    rescore: RescoreOption = False,
) -> None:
    """Measure the models on the recipe's tasks. The stages it is made from are built first where they are missing."""
    if not rescore:
        from posttrain.cli.run import execute

        execute(recipe, overrides, target="eval", force=force, smoke=smoke)
        return
    if force or smoke:
        raise UserError("--rescore builds nothing; it takes neither --force nor --smoke")
    _rescore(recipe, list(overrides or ()))


def _rescore(recipe: str, overrides: list[str]) -> None:
    from pathlib import Path

    from rich.console import Console

    from posttrain.evaluate.results import differences, read_results, rescore
    from posttrain.evaluate.table import primary_table
    from posttrain.recipe import load

    folder = Path(load(recipe, overrides).recipe.output_dir) / "eval"
    again = rescore(folder)
    Console().print(primary_table(again))
    different = differences(read_results(folder), again)
    if different:
        raise UserError([f"{folder}: {difference}" for difference in different])
    print(f"the answers in {folder} score as its results say")


evaluate.__name__ = "eval"
