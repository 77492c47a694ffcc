"""`posttrain recipes`: list the built-in recipes, or copy one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from posttrain.errors import UserError


def recipes(
    name: Annotated[str | None, typer.Argument(help="The recipe to copy into the current folder.")] = None,
) -> None:
    """List the built-in recipes; with a name, copy that one into the current folder."""
    from posttrain.recipe import builtin_recipes, find_recipe

    builtin = builtin_recipes()
    if name is None:
        width = max((len(entry) for entry, _, _ in builtin), default=0)
        for entry, description, _ in builtin:
            print(f"{entry:<{width}}  {description}")
        return
    source = next((path for entry, _, path in builtin if entry == name.removesuffix(".yaml")), None)
    if source is None:
        source = find_recipe(name)  # an error that names the nearest one
    target = Path(source.name)
    if target.exists():
        raise UserError(f"{target} exists already; copy it away or go to another folder, nothing is overwritten")
    shutil.copyfile(source, target)
    print(f"copied {source.stem} to {target}")
