"""Stage folders that are either whole or not there.

A stage writes to `.building/<folder>-<key>/` and the result is renamed to `<folder>/`. What stood there before, if it
was to be replaced, goes to `.replaced/`; nothing that was ever complete is deleted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from posttrain.durable import sync_folder
from posttrain.stages.context import WORK
from posttrain.stages.digest import sha256_text
from posttrain.stages.fingerprint import canonical
from posttrain.stages.manifest import MANIFEST, Manifest

BUILDING = ".building"
REPLACED = ".replaced"
_KEY = 12  # hex digits of a hash in a folder's name


def building_folder(output: Path, folder: str, fingerprint: str, inputs: Mapping[str, str]) -> Path:
    """Return where a stage is built.

    Args:
        output: The recipe's output folder.
        folder: Name of the stage's folder.
        fingerprint: The stage's fingerprint.
        inputs: Digests of the input folders: a build from other inputs is never continued, even where the
            fingerprints are equal because an input did not come out the same twice.
    """
    key = sha256_text(canonical([fingerprint, dict(inputs)]))
    return output / BUILDING / f"{folder}-{key[:_KEY]}"


def leftovers(output: Path, folder: str, keep: Path) -> list[Path]:
    """Return unfinished builds of a stage other than `keep`; they are left where they are."""
    found = (output / BUILDING).glob(f"{folder}-{'[0-9a-f]' * _KEY}")
    return sorted(path for path in found if path != keep)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it that are missing; return the ones made, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, up to one that holds something."""
    with suppress(OSError):  # not empty, or gone already
        for folder in folders:
            folder.rmdir()


def has_content(folder: Path) -> bool:
    """Say whether a folder is there and not empty."""
    return folder.is_dir() and next(folder.iterdir(), None) is not None


def open_building(building: Path, *, resumable: bool) -> bool:
    """Make the building folder ready, and say whether it holds something to go on from.

    What an interrupted build left is kept where the stage can be resumed, and removed where it cannot.
    """
    if has_content(building):
        if resumable:
            return True
        shutil.rmtree(building)
    building.mkdir(parents=True, exist_ok=True)
    return False


def discard_failed(building: Path, *, keep_files: bool) -> None:
    """Remove what a build left that the user's input made impossible.

    Args:
        building: Its folder.
        keep_files: Leave it if there are files in it, from which a stage that trains can go on.
    """
    if keep_files and any(path.is_file() for path in building.rglob("*")):
        return
    shutil.rmtree(building, ignore_errors=True)
    with suppress(OSError):  # not empty: another build
        building.parent.rmdir()


def finished(building: Path, fingerprint: str) -> Manifest | None:
    """Return the manifest of a build that was complete but not yet renamed, or None."""
    try:
        manifest = Manifest.read(building)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return manifest if manifest.fingerprint == fingerprint and not manifest.damage(building) else None


def clear_work(building: Path) -> None:
    """Remove what the build kept only for resuming."""
    if (building / WORK).exists():
        shutil.rmtree(building / WORK)


def promote(building: Path, final: Path) -> Path | None:
    """Rename a complete build to its final name.

    Args:
        building: A folder with its manifest.
        final: The stage's folder. If it exists it is moved to `.replaced/` first.

    Returns:
        Where the former folder is now, or None.
    """
    assert (building / MANIFEST).is_file(), f"{building} has no manifest: it must not become {final}"
    output, kept = final.parent, None
    if final.exists():
        kept = _free_name(output / REPLACED, final.name, Manifest.read(final).fingerprint)
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(final, kept)
    os.replace(building, final)
    sync_folder(output)
    if not any((output / BUILDING).iterdir()):
        (output / BUILDING).rmdir()
    return kept


def _free_name(parent: Path, folder: str, fingerprint: str) -> Path:
    name = parent / f"{folder}-{fingerprint[:_KEY]}"
    number = 1
    while name.exists():
        number += 1
        name = parent / f"{folder}-{fingerprint[:_KEY]}-{number}"
    return name
