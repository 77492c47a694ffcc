"""The recipe as a release holds it: every value filled in, and nothing of the place where it ran."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from posttrain.recipe.schema import Launch, Recipe
from posttrain.recipe.schema_generate import Teacher
from posttrain.release.split import placeless
from posttrain.stages.portable import portable

RECIPE = "recipe.yaml"
_HEAD = """\
# The recipe that this release was built by, with every value filled in. Of a path outside of the project only the last
# name is kept (.../NAME), and what says where things run is as in an empty recipe.
"""
_BASE_URL = next(field.default for field in dataclasses.fields(Teacher) if field.name == "base_url")


def portable_recipe(recipe: Recipe, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as plain values that are the same wherever it ran.

    Args:
        recipe: The recipe.
        resolved: The same as plain values, those from the environment masked.
    """
    empty = dataclasses.asdict(Launch())
    launch = {**empty, "num_processes": recipe.launch.num_processes, "cpu": recipe.launch.cpu}
    values = {**resolved, "output_dir": f"outputs/{recipe.name}", "launch": launch, "report_to": [], "cluster": None}
    if isinstance(values.get("data"), Mapping):
        values["data"] = {**values["data"], "num_proc": None}
    if isinstance(values.get("release"), Mapping):
        signing = values["release"]["signing"]
        if signing is not None:  # where a key is, is nobody's business, and whoever builds it again has another one
            signing = {**dict.fromkeys(signing), "method": signing["method"], "later": True}
        values["release"] = {**values["release"], "signing": signing, "public_words": []}
    found: dict[str, Any] = _without_servers(placeless(portable(values)))
    return found


def _without_servers(value: Any) -> Any:
    """Give each server's address its default: it is often the name of a machine, and decides nothing."""
    if isinstance(value, Mapping):
        return {key: _BASE_URL if key == "base_url" else _without_servers(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_without_servers(child) for child in value]
    return value


def recipe_yaml(plain: Mapping[str, Any], recipe: Recipe) -> str:
    """Write a portable recipe as YAML that loads as a recipe again, where no path was cut.

    Args:
        plain: What `portable_recipe` returned.
        recipe: The recipe, to tell what is masked from text that only looks like it.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    values = _escaped(plain, dataclasses.asdict(recipe))
    text: str = yaml.dump(
        values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
    )
    return _HEAD + text


def _escaped(value: Any, real: Any) -> Any:
    """Keep text that has `${` in it from being an interpolation when it is read, unless it stands for a secret."""
    if isinstance(value, Mapping):
        there = real if isinstance(real, Mapping) else {}
        return {key: _escaped(child, there.get(key)) for key, child in value.items()}
    if isinstance(value, list):
        others = list(real) if isinstance(real, (list, tuple)) and len(real) == len(value) else [None] * len(value)
        return [_escaped(child, other) for child, other in zip(value, others, strict=True)]
    return value.replace("${", "\\${") if isinstance(value, str) and value == real else value


def secrets_of(recipe: Recipe, resolved: Mapping[str, Any]) -> list[str]:
    """Return the values that came from the environment and are masked: what must be in no file.

    The default of an interpolation is not among them: it stands in the recipe.
    """
    found: list[str] = []

    def visit(real: Any, masked: Any) -> None:
        if isinstance(real, Mapping) and isinstance(masked, Mapping):
            for key, child in real.items():
                visit(child, masked.get(key))
        elif isinstance(real, (list, tuple)) and isinstance(masked, (list, tuple)):
            for child, other in zip(real, masked, strict=True):
                visit(child, other)
        elif real != masked and isinstance(real, str) and real not in str(masked):
            found.append(real)

    visit(dataclasses.asdict(recipe), resolved)
    return found
