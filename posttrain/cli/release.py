"""`posttrain release`: the folders that are published, and on request their way to the hub."""

from __future__ import annotations

from typing import Annotated

import typer

from posttrain.cli.options import ForceOption, OverridesArgument, RecipeArgument, SmokeOption
from posttrain.cli.run import execute
from posttrain.errors import UserError


def release(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    force: ForceOption = None,
    smoke: SmokeOption = False,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="ORG", help="Upload the folders to repositories of this user or organisation."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make repositories that are new public.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what --push would send, and send nothing; asks no server.")
    ] = False,
) -> None:
    """Write the folders that are published. The stages they are made from are built first where they are missing."""
    if push is None and (public or dry_run):
        raise UserError(f"{'--public' if public else '--dry-run'} says how to push; give --push ORG too")
    if push is not None and smoke:
        raise UserError("--push: a smoke run trains nothing worth publishing; leave out one of --push and --smoke")
    # The folders name their repositories, so who they are for is settled when they are written.
    named = [*(overrides or ()), *([f"release.org={push}"] if push is not None else [])]
    loaded = execute(recipe, named, target="release", force=force, smoke=smoke)
    if push is not None:
        from pathlib import Path

        from posttrain.release.push import push_all

        push_all(Path(loaded.recipe.output_dir) / "release", public=public, dry_run=dry_run, say=print)
