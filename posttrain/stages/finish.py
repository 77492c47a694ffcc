"""The end of a build: everything in the folder is listed in its manifest, and the folder gets its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.stages import machine
from posttrain.stages.folder import clear_work, promote
from posttrain.stages.manifest import Manifest, digest_of, list_files
from posttrain.stages.portable import portable

if TYPE_CHECKING:
    from posttrain.stages.context import Context
    from posttrain.stages.status import StageStatus


def write_manifest(context: Context, status: StageStatus, times: dict[str, Any]) -> None:
    """Describe a complete build in its manifest."""
    files = list_files(context.folder, context.volatile)
    recipe = portable(status.stage.part(context.resolved))
    Manifest(
        stage=status.stage.name,
        fingerprint=status.fingerprint.value,
        parts=status.fingerprint.parts,
        recipe=recipe,
        inputs=status.inputs,
        sources=portable(context.sources),
        files=files,
        digest=digest_of(files),
        seed=context.seed,
        world_size=context.world_size if status.stage.trains else 1,
        versions=machine.versions(),
        code=machine.commit(),
        hardware=machine.hardware(),
        times=times,
        metrics=portable(context.metrics),
    ).write(context.folder)


def put_in_place(building: Path, folder: Path) -> Path | None:
    """Give a described build its final name, and return where the folder is that had it before, or None."""
    clear_work(building)
    return promote(building, folder)
