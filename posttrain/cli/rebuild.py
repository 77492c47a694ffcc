"""`posttrain run --verify-rebuild`: the same build once more, and where it parts from the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from posttrain.errors import EXIT_USER_ERROR, UserError

_WORDS = {"equal": "equal", "within": "within tolerance", "follows": "follows", "different": "DIFFERENT"}


def rebuild(folder: Path, arguments: Sequence[str | None], until: str | None) -> None:
    """Build again what a folder records, and print a line a stage.

    Args:
        folder: A release or an output folder.
        arguments: What else stands on the command line: `key=value` only.
        until: The last stage to build.

    Raises:
        UserError: An argument is no `key=value`, or it cannot be built.
        typer.Exit: With code 2, if a stage came out different.
    """
    from rich.console import Console

    from posttrain.verify.rebuild import rebuild as build_again

    given = [argument for argument in arguments if argument is not None]
    if recipes := [argument for argument in given if "=" not in argument]:
        raise UserError(f"{recipes[0]}: --verify-rebuild takes the recipe that {folder} records, and no other")
    found = build_again(folder, given, until=until, console=Console())
    print(f"\n{folder} built again in {found.folder}:")
    width = max((len(stage.stage) for stage in found.stages), default=0)
    for stage in found.stages:
        print(f"{stage.stage:<{width}}  {_WORDS[stage.outcome]}: {stage.text}")
    if found.parted is None:
        print("what was built again is equal in every byte")
    else:
        verdict = "within what is promised" if found.holds else "not what was recorded"
        print(f"they part at {found.parted.stage}; {verdict}")
    if not found.holds:
        raise typer.Exit(EXIT_USER_ERROR)
