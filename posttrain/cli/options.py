"""Arguments that several subcommands share."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a built-in recipe.", show_default=False)
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Values that replace those of the recipe, such as sft.learning_rate=1e-5."
    ),
]
ForceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--force",
        metavar="STAGE",
        help="Build this stage again though it is complete; what it replaces is kept. Can be given several times.",
    ),
]

SmokeOption = Annotated[
    bool,
    typer.Option(
        "--smoke",
        help="Prove the recipe on this machine first: a tiny model of the same architecture, sample rows and "
        "few steps, in its own output folder.",
    ),
]


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from posttrain import __version__

        print(f"posttrain {__version__}")
        raise typer.Exit
