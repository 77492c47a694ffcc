"""`posttrain check`: everything that can be known to be wrong before a GPU is taken. Starts nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from posttrain.cli.options import OverridesArgument, RecipeArgument
from posttrain.errors import EXIT_USER_ERROR


def check(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    forward: Annotated[
        bool,
        typer.Option("--forward", help="Also load the real model, and run its first batch forward and backward."),
    ] = False,
    hardware: Annotated[
        str | None,
        typer.Option(
            "--hardware",
            metavar="NAME",
            help="Check the memory of these devices and not those of this machine: MI250X, A100-80G, H100, ...",
        ),
    ] = None,
) -> None:
    """Say all that is wrong with a recipe, errors first, and what to do about each; build nothing.

    Exits with 2 where there is an error.
    """
    from rich.console import Console

    from posttrain.recipe import load

    loaded = load(recipe, list(overrides or ()))
    from posttrain.planning.hardware import named
    from posttrain.preflight.findings import LEVELS
    from posttrain.preflight.run import examine

    console = Console(stderr=True)
    with console.status("checking") as status:
        found = examine(
            loaded,
            forward=forward,
            hardware=named(hardware) if hardware is not None else None,
            say=lambda title: status.update(f"checking: {title}"),
        )
    for finding in found:
        print(f"{finding.level + ':':<9}{finding.text}")
    counts = {level: sum(finding.level == level for finding in found) for level in LEVELS}
    listed = ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items())
    print(f"{loaded.recipe.name}: {listed}")
    if counts["error"]:
        raise typer.Exit(EXIT_USER_ERROR)
