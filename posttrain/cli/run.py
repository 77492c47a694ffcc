"""`posttrain run`, and one command a stage."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from posttrain.cli.options import ForceOption, OverridesArgument, RecipeArgument
from posttrain.errors import UserError

FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="STAGE", help="Begin at this stage; the stages before it must be complete."),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="End with this stage.")]


def _execute(
    recipe: str,
    overrides: Sequence[str] | None,
    *,
    from_: str | None = None,
    until: str | None = None,
    target: str | Sequence[str] | None = None,
    force: Sequence[str] | None = None,
) -> None:
    from rich.console import Console

    from posttrain.cli.summary import summarise
    from posttrain.recipe import load
    from posttrain.stages.lock import OWNER_VARIABLE
    from posttrain.stages.runner import run as run_stages

    loaded = load(recipe, list(overrides or ()))
    console = Console()
    done = run_stages(loaded, from_=from_, until=until, target=target, force=list(force or ()), console=console)
    # A process that `run` has launched leaves the summary to the run above it.
    if OWNER_VARIABLE not in os.environ and any(entry.action != "reuse" for entry in done):
        summarise(done, console)


def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    from_: FromOption = None,
    until: UntilOption = None,
    force: ForceOption = None,
) -> None:
    """Build every stage of a recipe that is not there yet, and go on with what was cut off."""
    _execute(recipe, overrides, from_=from_, until=until, force=force)


def _stage(name: str, what: str) -> Callable[..., None]:
    def command(recipe: RecipeArgument, overrides: OverridesArgument = None, force: ForceOption = None) -> None:
        _execute(recipe, overrides, target=name, force=force)

    command.__name__ = name
    command.__doc__ = f"{what} The stages it is made from are built first where they are missing."
    return command


generate = _stage("generate", "Have the recipe's models write rows.")
cpt = _stage("cpt", "Pretrain the base checkpoint on text.")
data = _stage("data", "Build the SFT and preference rows.")


def tokenize(recipe: RecipeArgument, overrides: OverridesArgument = None, force: ForceOption = None) -> None:
    """Turn the rows of both sets into tokens. The stages they are made from are built first where they are missing."""
    from posttrain.recipe import load
    from posttrain.stages.graph import chain

    stages = [stage.name for stage in chain(load(recipe, list(overrides or ())).recipe)]
    targets = [name for name in stages if name in ("tokenize-sft", "tokenize-preference")]
    if not targets:
        raise UserError("tokenize: the recipe has neither an sft nor a dpo section, so there is nothing to tokenize")
    _execute(recipe, overrides, target=targets, force=force)


sft = _stage("sft", "Train the SFT checkpoint; also under accelerate launch.")
dpo = _stage("dpo", "Train the Instruct checkpoint by DPO; also under accelerate launch.")
