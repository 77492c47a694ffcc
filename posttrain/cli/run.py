"""`posttrain run`, and one command a stage."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posttrain.cli.options import ForceOption, OverridesArgument, RecipeArgument, SmokeOption
from posttrain.errors import UserError

if TYPE_CHECKING:
    from posttrain.recipe import LoadedRecipe

FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="STAGE", help="Begin at this stage; the stages before it must be complete."),
]
OptionalRecipeArgument = Annotated[
    str | None, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a built-in recipe.")
]
VerifyRebuildOption = Annotated[
    Path | None,
    typer.Option(
        "--verify-rebuild",
        metavar="DIR",
        help="Build again what is in DIR, a release or an output folder, from the recipe recorded there, in a folder "
        "of its own, and say at which stage the two part.",
    ),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="End with this stage.")]


def execute(
    recipe: str,
    overrides: Sequence[str] | None,
    *,
    from_: str | None = None,
    until: str | None = None,
    target: str | Sequence[str] | None = None,
    force: Sequence[str] | None = None,
    smoke: bool = False,
) -> LoadedRecipe:
    """Build stages of a recipe and say what came out; return the recipe, made small for a smoke run."""
    from rich.console import Console

    from posttrain.cli.summary import summarise
    from posttrain.recipe import load
    from posttrain.stages.lock import OWNER_VARIABLE
    from posttrain.stages.runner import run as run_stages
    from posttrain.stopping import ending_at_once

    console = Console()
    with ending_at_once(lambda: "stopped before a stage was begun"):
        loaded = load(recipe, list(overrides or ()))
        if smoke:
            loaded = _small(loaded)
        done = run_stages(loaded, from_=from_, until=until, target=target, force=list(force or ()), console=console)
    # A process that `run` has launched leaves the summary to the run above it.
    if OWNER_VARIABLE not in os.environ and any(entry.action != "reuse" for entry in done):
        summarise(done, console)
    return loaded


def _small(loaded: LoadedRecipe) -> LoadedRecipe:
    """Return the recipe made small, with its tiny model in place."""
    from posttrain.recipe.smoke import FOLDER, smoke

    small = smoke(loaded)
    recipe = small.loaded.recipe
    said = list(small.notes)
    if recipe.model.new is None:
        from posttrain.train.stand_in import make_stand_in

        folder = Path(recipe.output_dir) / FOLDER
        reward = recipe.reward is not None
        said.insert(0, f"model: {make_stand_in(recipe.model, small.base, folder, recipe.seed, reward)}")
    if os.environ.get("RANK", "0") == "0":
        for line in said:
            print(f"smoke: {line}")
    return small.loaded


def run(
    recipe: OptionalRecipeArgument = None,
    overrides: OverridesArgument = None,
    from_: FromOption = None,
    until: UntilOption = None,
    force: ForceOption = None,
    smoke: SmokeOption = False,
    verify_rebuild: VerifyRebuildOption = None,
) -> None:
    """Build every stage of a recipe that is not there yet, and go on with what was cut off.

    With launch.slurm in the recipe each stage becomes a job of the cluster.
    """
    if verify_rebuild is not None:
        from posttrain.cli.rebuild import rebuild

        if from_ is not None or force or smoke:
            raise UserError("--verify-rebuild builds all of the chain anew; of the other options it takes --until only")
        rebuild(verify_rebuild, [recipe, *(overrides or ())], until)
        return
    if recipe is None:
        raise typer.BadParameter("give a recipe: a file, or the name of a built-in one", param_hint="RECIPE")
    if smoke or not _submitted(recipe, overrides, from_, until, force):
        execute(recipe, overrides, from_=from_, until=until, force=force, smoke=smoke)


def _submitted(
    recipe: str, overrides: Sequence[str] | None, from_: str | None, until: str | None, force: Sequence[str] | None
) -> bool:
    """Submit the stages where the recipe asks for that; return False where they are to be built here."""
    from posttrain.recipe import load
    from posttrain.stages.slurm import submit, submits

    loaded = load(recipe, list(overrides or ()))
    if not submits(loaded.recipe):
        return False
    complete = submit(loaded, from_=from_, until=until, force=list(force or ()))
    print(f"nothing to submit: {', '.join(status.stage.name for status in complete)} are complete")
    return True


def _stage(name: str, what: str) -> Callable[..., None]:
    def command(
        recipe: RecipeArgument,
        overrides: OverridesArgument = None,
        force: ForceOption = None,
        smoke: SmokeOption = False,
    ) -> None:
        execute(recipe, overrides, target=name, force=force, smoke=smoke)

    command.__name__ = name
    command.__doc__ = f"{what} The stages it is made from are built first where they are missing."
    return command


generate = _stage("generate", "Have the recipe's models write rows.")
cpt = _stage("cpt", "Pretrain the base checkpoint on text.")
data = _stage("data", "Build the SFT and preference rows.")


def tokenize(recipe: RecipeArgument, overrides: OverridesArgument = None, force: ForceOption = None) -> None:
    """Turn the rows of both sets, and texts with shares, into tokens; what they are made from is built first."""
    from posttrain.recipe import load
    from posttrain.stages.graph import chain

    stages = [stage.name for stage in chain(load(recipe, list(overrides or ())).recipe)]
    targets = [name for name in stages if name.startswith("tokenize-")]
    if not targets:
        raise UserError("tokenize: there is nothing to; the recipe has no sft or dpo section, and no texts with shares")
    execute(recipe, overrides, target=targets, force=force)


sft = _stage("sft", "Train the SFT checkpoint; also under accelerate launch.")
ref_logps = _stage("ref-logps", "Compute the reference log-probabilities of DPO; also under accelerate launch.")
dpo = _stage("dpo", "Train the Instruct checkpoint by DPO; also under accelerate launch.")
quantize = _stage("quantize", "Make quantised variants of a checkpoint, and measure them.")
