"""`manifest.json`: what a stage's folder was made from and what is in it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from posttrain.durable import sync_folder
from posttrain.stages.context import WORK
from posttrain.stages.digest import sha256_file, sha256_text, write_atomically

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The record of one build. It holds no absolute path, no host name and no secret.

    Attributes:
        stage: The stage's name.
        fingerprint: Hash of what determines the output, see `posttrain.stages.fingerprint`.
        parts: What the fingerprint was made of, so that a later difference can be named.
        recipe: The part of the resolved recipe that was used.
        inputs: `fingerprint` and `digest` of each stage that was read.
        sources: What the build says it read from outside.
        files: `sha256` and `bytes` of every other file in the folder by relative name; `volatile` marks those that
            differ from build to build.
        digest: SHA-256 over names and digests of the files that are not volatile: equal for equal outputs.
        seed: The recipe's seed.
        world_size: How many processes built it.
        versions: Versions of the packages.
        code: Commit of the clone it was built from, or None.
        hardware: Processor, memory in bytes, GPUs.
        times: `started` (ISO 8601, UTC) and `seconds`; of the last start only, if the build was resumed.
        metrics: What the build reported.
    """

    stage: str
    fingerprint: str
    parts: dict[str, str]
    recipe: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    sources: list[dict[str, Any]]
    files: dict[str, dict[str, Any]]
    digest: str
    seed: int
    world_size: int
    versions: dict[str, str]
    code: dict[str, Any] | None
    hardware: dict[str, Any]
    times: dict[str, Any]
    metrics: dict[str, Any]
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write `manifest.json` and flush it to the disk; the last thing that a build writes."""
        text = json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True, ensure_ascii=False)
        write_atomically(folder / MANIFEST, text + "\n")
        sync_folder(folder)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is not one of this format; the message says why.
        """
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else None
            raise ValueError(f"it has format {found}, this version of posttrain reads format {FORMAT}")
        names = {field.name for field in dataclasses.fields(cls)}
        if content.keys() != names:
            raise ValueError(f"its keys differ from the expected ones: {sorted(content.keys() ^ names)}")
        return cls(**content)

    def damage(self, folder: Path) -> list[str]:
        """Return what is missing from a folder or has another size. Contents are not read."""
        problems = []
        for name, entry in self.files.items():
            try:
                size = (folder / name).stat().st_size
            except OSError:
                problems.append(f"{name} is missing")
                continue
            if size != entry["bytes"]:
                problems.append(f"{name} has {size} bytes instead of {entry['bytes']}")
        return problems


def list_files(folder: Path, volatile: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Return digest and size of every file in a folder but its manifest and `WORK`, each flushed to the disk."""
    work = folder / WORK
    paths = sorted(
        path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST and work not in path.parents
    )
    listed = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        listed[name] = {"sha256": sha256_file(path, sync=True), "bytes": path.stat().st_size}
        if any(fnmatchcase(name, pattern) for pattern in volatile):
            listed[name]["volatile"] = True
    return listed


def digest_of(files: dict[str, dict[str, Any]]) -> str:
    """Return the SHA-256 over the names and digests of the files that are not volatile."""
    lines = (f"{entry['sha256']}  {name}\n" for name, entry in sorted(files.items()) if not entry.get("volatile"))
    return sha256_text("".join(lines))
