"""From the name of a recipe to a checked, resolved `Recipe`, with the place where each value was written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.errors import UserError
from posttrain.recipe.check import Checker, fill_defaults
from posttrain.recipe.files import find_recipe, read_chain
from posttrain.recipe.interpolation import resolve
from posttrain.recipe.origins import Origin, dotted, walk
from posttrain.recipe.overrides import apply_overrides
from posttrain.recipe.rules import check_rules
from posttrain.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class LoadedRecipe:
    """A recipe that has been read and found in order.

    Args:
        recipe: The recipe; the entries of `data.sft` and `data.preference` are instances of their source's own class.
        origins: Where each value was written, by dotted key (`data.sft.0.path`); sections have an origin too.
        path: The recipe's file.
        name: The recipe as the user named it, and `overrides` the `key=value` arguments: together they load it again.
        flags: Options of the command line that change how it is run, such as `--smoke`.
        masks: For each value that came through `${oc.env:...}`, by dotted key, the interpolation to show instead.
    """

    recipe: Recipe
    origins: dict[str, Origin]
    path: Path
    name: str
    overrides: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    masks: dict[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows a subcommand on the command line to load the same again."""
        return (self.name, *self.overrides, *self.flags)

    @property
    def secret_keys(self) -> frozenset[str]:
        """The dotted keys whose values came from the environment and are not shown."""
        return frozenset(self.masks)

    def resolved(self, show_secrets: bool = False) -> dict[str, Any]:
        """Return the whole recipe as plain dicts, lists and scalars, in the order of the schema.

        Args:
            show_secrets: Give what came from the environment as its value; otherwise as `${oc.env:...}`.
        """
        plain = dataclasses.asdict(self.recipe)
        return plain if show_secrets or not self.masks else _masked(plain, self.masks, "")


def _masked(value: Any, masks: dict[str, str], key: str) -> Any:
    if key in masks:
        return masks[key]
    if isinstance(value, dict):
        return {name: _masked(child, masks, f"{key}.{name}" if key else str(name)) for name, child in value.items()}
    if isinstance(value, list):
        return [_masked(child, masks, f"{key}.{index}") for index, child in enumerate(value)]
    return value


def load(path_or_name: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read, merge, resolve and check a recipe.

    Args:
        path_or_name: A file, or the name of a built-in recipe (see `find_recipe`).
        overrides: `key=value` arguments, applied in order after the files have been merged.

    Raises:
        UserError: With every problem that was found, each with its file and line. Only a file that cannot be read, or
            is not YAML, hides what else is wrong.

    Example:
        >>> load("tiny", ["sft.learning_rate=1e-4"]).recipe.sft.learning_rate
        0.0001
    """
    path = find_recipe(str(path_or_name))
    problems: list[str] = []
    tree = apply_overrides(read_chain(path, problems), overrides, problems)
    fill_defaults(tree, Recipe)
    resolve(tree, problems)
    fill_defaults(tree, Recipe)  # a section that was an interpolation is one only now
    checker = Checker()
    recipe = checker.section(tree, Recipe, ())
    problems += [*checker.problems, *check_rules(tree)]
    if problems:
        raise UserError(problems)
    nodes = {dotted(key): node for key, node in walk(tree)}
    return LoadedRecipe(
        recipe=recipe,
        origins={key: node.origin for key, node in nodes.items()},
        path=path,
        name=str(path_or_name),
        overrides=tuple(overrides),
        masks={key: str(node.text) for key, node in nodes.items() if node.secret},
    )
