"""The recorded recipe built once more, in a folder of its own, and compared with what was recorded."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.recipe import LoadedRecipe, load
from posttrain.stages.graph import chain
from posttrain.stages.runner import run
from posttrain.verify.compare import Comparison, Outcome, compare_stage, different_files
from posttrain.verify.recorded import CUT, Recorded, recorded

if TYPE_CHECKING:
    from rich.console import Console

RECIPE = "recorded.yaml"  # in the new output folder, for the processes that training starts
RELEASE = "release"


@dataclass(frozen=True)
class Rebuilt:
    """What came of building again: a line a stage, in order, and where the two builds part first, if they do."""

    folder: Path
    stages: list[Comparison]

    @property
    def parted(self) -> Comparison | None:
        """The first stage that is not equal."""
        return next((stage for stage in self.stages if stage.outcome != "equal"), None)

    @property
    def holds(self) -> bool:
        """Whether what was recorded could be built again: no stage is different beyond its tolerance."""
        return not any(stage.outcome == "different" for stage in self.stages)


def rebuild(folder: Path, overrides: Sequence[str] = (), *, until: str | None = None, console: Console) -> Rebuilt:
    """Build again what a folder records, and compare.

    Args:
        folder: A release folder, or the output folder of a recipe.
        overrides: `key=value`: files that the recorded recipe has only the last name of, and `output_dir`.
        until: The last stage to build.
        console: Where the build prints.

    Raises:
        UserError: The folder records no build, files have to be given, or a stage cannot be built.
    """
    old = recorded(folder)
    loaded = load_recorded(old, overrides)
    run(loaded, until=until, console=console)
    new = recorded(Path(loaded.recipe.output_dir))
    return Rebuilt(Path(loaded.recipe.output_dir), compare(old, new, [stage.name for stage in chain(loaded.recipe)]))


def load_recorded(old: Recorded, overrides: Sequence[str]) -> LoadedRecipe:
    """Load the recorded recipe as one whose output goes to a folder of its own.

    Raises:
        UserError: Paths are missing from it, or the folder is the recorded one.
    """
    import yaml

    own = next((each.partition("=")[2] for each in reversed(overrides) if each.startswith("output_dir=")), None)
    name = str(old.recipe.get("name", "recorded"))
    if re.fullmatch(r"[^\s/\\.][^\s/\\]*", name) is None:
        raise UserError(f"{old.folder}: the name of its recipe, {name!r}, cannot name a folder")
    output = Path(own) if own is not None else Path("outputs") / f"{name}-rebuild"
    if output.exists() and os.path.samefile(output, old.folder):
        raise UserError(f"output_dir={output}: is what was recorded; choose another output_dir=...")
    values = with_texts({**old.recipe, "output_dir": str(output)}, old.texts)
    output.mkdir(parents=True, exist_ok=True)
    path = output / RECIPE
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    loaded = load(path, [each for each in overrides if not each.startswith("output_dir=")])
    if lost := lost_paths(loaded.resolved()):
        path.unlink()
        raise UserError(
            [f"{key}: of its path only the last name is recorded ({value}); give {key}=PATH" for key, value in lost]
        )
    return loaded


def with_texts(values: dict[str, Any], texts: Mapping[str, Path]) -> dict[str, Any]:
    """Take the texts of licences from the recorded release where the recipe has lost their paths."""
    release = values.get("release")
    if not isinstance(release, Mapping):
        return values
    files = [str(each) for each in release.get("license_files") or ()]
    found = [
        str(texts[each.removeprefix(CUT)]) if each.startswith(CUT) and each.removeprefix(CUT) in texts else each
        for each in files
    ]
    return {**values, "release": {**release, "license_files": found}}


def lost_paths(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Return the dotted keys of a recipe whose values are paths that were cut to their last names."""
    if isinstance(value, Mapping):
        return [found for name, child in value.items() for found in lost_paths(child, f"{key}.{name}" if key else name)]
    if isinstance(value, (list, tuple)):
        return [found for index, child in enumerate(value) for found in lost_paths(child, f"{key}.{index}")]
    return [(key, value)] if isinstance(value, str) and value.startswith(CUT) else []


def compare(old: Recorded, new: Recorded, order: Sequence[str]) -> list[Comparison]:
    """Compare two builds stage by stage, in the order of the chain; the release folders come last."""
    found: list[Comparison] = []
    outcomes: dict[str, Outcome] = {}
    for stage in order:
        if stage == RELEASE or stage not in old.manifests or stage not in new.manifests:
            continue
        comparison = compare_stage(
            stage,
            old.manifests[stage],
            new.manifests[stage],
            builds=(old.builds.get(stage, {}), new.builds.get(stage, {})),
            curves=(old.curves.get(stage), new.curves.get(stage)),
            earlier=outcomes,
        )
        outcomes[stage] = comparison.outcome
        found.append(comparison)
    for name in sorted(old.releases.keys() & new.releases.keys()):
        found.append(_compare_release(name, old.releases[name], new.releases[name], outcomes))
    return found


def _compare_release(
    name: str, before: Mapping[str, str], after: Mapping[str, str], outcomes: Mapping[str, Outcome]
) -> Comparison:
    stage = f"{RELEASE}/{name}"
    files = different_files(*({n: {"sha256": digest} for n, digest in each.items()} for each in (before, after)))
    if not files:
        return Comparison(stage, "equal", f"equal, byte for byte ({len(before)} files)")
    named = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
    follows = any(outcome != "equal" for outcome in outcomes.values())
    return Comparison(stage, "follows" if follows else "different", f"differs in {named}")
