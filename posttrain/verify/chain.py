"""Whether the manifests of a release belong together: each built from what the one before it left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from posttrain.differences import INPUT
from posttrain.release.checkpoints import STAGES
from posttrain.stages.digest import sha256_text
from posttrain.stages.fingerprint import canonical, flatten
from posttrain.stages.manifest import FORMAT, digest_of

Values = Mapping[str, Any]
_KEYS = {
    "stage": str,
    "fingerprint": str,
    "parts": Mapping,
    "recipe": Mapping,
    "inputs": Mapping,
    "sources": list,
    "files": Mapping,
    "digest": str,
    "seed": int,
    "world_size": int,
    "versions": Mapping,
    "metrics": Mapping,
}
_DIGEST = re.compile(r"[0-9a-f]{64}")


def manifest_problems(stage: str, manifest: Values) -> list[str]:
    """Return what is wrong with one manifest by itself: its shape, its fingerprint, its digest."""
    if manifest.get("format") != FORMAT:
        return [f"has format {manifest.get('format')!r}, and this version of posttrain reads format {FORMAT}"]
    wrong = [key for key, kind in _KEYS.items() if not isinstance(manifest.get(key), kind)]
    if wrong:
        return [f"lacks {', '.join(wrong)}, or has something else there"]
    found = []
    if manifest["stage"] != stage:
        found.append(f"is of the stage {manifest['stage']!r}")
    if sha256_text(canonical(dict(manifest["parts"]))) != manifest["fingerprint"]:
        found.append("its fingerprint is not that of its parts: one of them was changed")
    entries = manifest["files"].values()
    if not all(isinstance(entry, Mapping) and _DIGEST.fullmatch(str(entry.get("sha256"))) for entry in entries):
        found.append("a file in it has no digest")
    elif digest_of(dict(manifest["files"])) != manifest["digest"]:
        found.append("its digest is not that of its files: one of them was changed")
    return found


def chain_problems(manifests: Mapping[str, Values]) -> list[str]:
    """Return what is wrong between manifests that are right by themselves; each problem begins with a stage.

    Args:
        manifests: The stable parts, by stage.
    """
    found = []
    for stage, manifest in manifests.items():
        named = {part.removeprefix(INPUT) for part in manifest["parts"] if part.startswith(INPUT)}
        for name in sorted(named ^ set(manifest["inputs"])):
            found.append(f"{stage}: {name} is an input by its parts or by its inputs, and not by both")
        for name, entry in manifest["inputs"].items():
            before = manifests.get(name)
            if before is None:
                found.append(f"{stage}: was built from {name}, whose manifest is not here")
                continue
            for key in ("fingerprint", "digest"):
                if not isinstance(entry, Mapping) or entry.get(key) != before[key]:
                    found.append(f"{stage}: was built from {name} with another {key} than the manifest of {name} has")
            if manifest["parts"].get(f"{INPUT}{name}") not in (None, before["fingerprint"]):
                found.append(f"{stage}: its fingerprint is of another {name} than the manifest of {name} has")
    return found


def recipe_problems(recipe: Values, manifests: Mapping[str, Values]) -> list[str]:
    """Return where the recipe of a release says something else than the manifests of the training stages recorded.

    Args:
        recipe: `recipe.yaml` as plain values.
        manifests: The stable parts, by stage.
    """
    written, found = flatten(recipe), []
    for stage in STAGES:
        recorded = flatten(manifests.get(stage, {}).get("recipe", {}))
        different = [key for key, value in recorded.items() if key in written and written[key] != value]
        found += [f"{key} is {written[key]}, and the stage {stage} was built with {recorded[key]}" for key in different]
        found += [
            f"{key} is not there, and the stage {stage} was built with {value}"
            for key, value in recorded.items()
            if key not in written
        ]
    return found
