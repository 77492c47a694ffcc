"""What a release or an output folder records of how it was built: the recipe, the manifests, the loss curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.errors import UserError
from posttrain.recipe.schema import Recipe
from posttrain.release.curves import curves
from posttrain.release.layout import ABOUT, MANIFESTS
from posttrain.release.limits import TEXT, read_json, read_text
from posttrain.release.names import name_problem
from posttrain.release.recipe_text import RECIPE
from posttrain.release.split import placeless, split
from posttrain.release.sums import BUILD, read_sums
from posttrain.stages.manifest import MANIFEST, Manifest

CUT = ".../"  # how a path begins of which only the last name was kept


@dataclass
class Recorded:
    """What is recorded of a build.

    Attributes:
        folder: Where it was read.
        recipe: The recipe as plain values; text with `${` in it is escaped as in a file.
        manifests: The stable part of each stage's manifest, by stage.
        builds: What is of that build alone: `hardware` and the like, by stage, see `posttrain.release.split`.
        curves: Logged losses by training stage, see `posttrain.release.curves`.
        releases: The digests of the files of each release folder, by its name.
        texts: Files in the folder that may stand for paths that the recipe has lost, by name.
    """

    folder: Path
    recipe: dict[str, Any]
    manifests: dict[str, dict[str, Any]]
    builds: dict[str, dict[str, Any]]
    curves: dict[str, dict[str, list[list[float]]]]
    releases: dict[str, dict[str, str]] = field(default_factory=dict)
    texts: dict[str, Path] = field(default_factory=dict)


def recorded(folder: Path) -> Recorded:
    """Read what is recorded in a release folder, or in the output folder of a recipe.

    Raises:
        UserError: It is neither, or cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"--verify-rebuild {folder}: there is no such folder; give a release or an output folder")
    if (folder / ABOUT).is_file():
        return _of_release(folder)
    if any(folder.glob(f"*/{MANIFEST}")):
        return _of_output(folder)
    if (folder / MANIFEST).is_file() or (folder / "release").is_dir():
        raise UserError(f"--verify-rebuild {folder}: is one stage; give the output folder around it, or one release")
    raise UserError(f"--verify-rebuild {folder}: holds neither a release nor stages with their manifests")


def _of_release(folder: Path) -> Recorded:
    about = read_json(folder / ABOUT, ABOUT)
    stages, name = about.get("chain"), str(about.get("name", ""))
    if not isinstance(stages, list) or any(name_problem(str(each)) for each in (*stages, name)):
        raise UserError(f"{folder / ABOUT}: is not as a release has it")
    manifests = {}
    for stage in stages:
        shown = f"{MANIFESTS}/{stage}.json"
        manifests[stage] = read_json(folder / shown, shown)
        missing = {"fingerprint", "parts", "files", "digest", "versions", "world_size"} - manifests[stage].keys()
        if missing:
            raise UserError(f"{folder / shown}: lacks {', '.join(sorted(missing))}")
    build = read_json(folder / BUILD, BUILD) if (folder / BUILD).is_file() else {}
    return Recorded(
        folder=folder,
        recipe=_recipe(folder / RECIPE),
        manifests=manifests,
        builds=build.get("stages", {}),
        curves=build.get("curves", {}),
        releases={name: read_sums(folder)},
        texts={path.name: path for path in sorted(folder.iterdir()) if path.is_file() and path.stat().st_size <= TEXT},
    )


def _of_output(folder: Path) -> Recorded:
    manifests, builds, found = {}, {}, {}
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        try:
            manifest = Manifest.read(path.parent)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read: {error}") from error
        stable, volatile = split(dataclasses.asdict(manifest))
        manifests[manifest.stage], builds[manifest.stage] = stable, volatile
        if (curve := curves(path.parent)) is not None:
            found[manifest.stage] = curve
    releases = {path.parent.name: path.parent for path in sorted(folder.glob(f"release/*/{RECIPE}"))}
    texts: dict[str, Path] = {}
    if releases:
        first = next(iter(releases.values()))
        recipe = _recipe(first / RECIPE)
        texts = {path.name: path for path in sorted(first.iterdir()) if path.is_file()}
    else:
        recipe = merged_recipe(folder.name, manifests)
    sums = {name: read_sums(path) for name, path in releases.items()}
    return Recorded(folder, recipe, manifests, builds, found, sums, texts)


def _recipe(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(read_text(path, path.name))
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no recipe")
    return content


def merged_recipe(name: str, manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put a recipe together from the parts that the stages used; keys that no stage used have their defaults.

    Args:
        name: What the recipe is called, where no stage knows.
        manifests: The manifests of the stages.
    """
    known = {field.name for field in dataclasses.fields(Recipe)}
    found: dict[str, Any] = {}
    for manifest in manifests.values():
        part = {key: value for key, value in placeless(manifest["recipe"]).items() if key in known}
        if manifest["stage"] == "release":
            part["release"] = {key: value for key, value in part["release"].items() if key != "signed"}
        found = _merged(found, part)
    found["seed"] = next((manifest["seed"] for manifest in manifests.values()), 42)
    processes = max((manifest["world_size"] for manifest in manifests.values()), default=1)
    return {"name": name, **found, "launch": {"num_processes": processes}}


def _merged(one: Any, two: Any) -> Any:
    """Lay two parts of one recipe over another: what only one of them has is kept."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return {**one, **{key: _merged(one[key], value) if key in one else value for key, value in two.items()}}
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [_merged(first, second) for first, second in zip(one, two, strict=True)]
    return two
