"""What the files of a release folder are called, and which of them belong to which stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
ABOUT = "release.json"
CARD = "README.md"
CONSTRAINTS = "constraints.txt"
MANIFESTS = "manifests"


def constraints_file() -> Path:
    """Return the versions that the package is tested with: in an installed wheel, or in the clone."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_assets" / CONSTRAINTS
    return installed if installed.is_file() else package.parent / CONSTRAINTS


def recorded_files(stable: Mapping[str, Any], inside: str) -> dict[str, dict[str, Any]]:
    """Return what a stage's manifest has of the files of a checkpoint, by their names in its folder."""
    prefix = "" if inside == "." else f"{inside}/"
    return {name.removeprefix(prefix): entry for name, entry in stable["files"].items() if name.startswith(prefix)}
