"""What a stage's build is given, and what it hands back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from posttrain.recipe.schema import Recipe

WORK = ".work"


@dataclass(kw_only=True)
class Context:
    """One build of one stage, in one process.

    Attributes:
        stage: Its name.
        recipe: The whole recipe.
        resolved: The same as plain values.
        folder: Where to write the output. It becomes the stage's folder when the build has returned in all processes.
        inputs: The finished folders of the stages that this one reads, by name.
        resume: Whether `folder` holds what an interrupted build of the same fingerprint from the same inputs left.
        rank: Number of this process, 0 the one that writes what only one may write.
        world_size: How many processes run this build together.
        console: Where to print; silent on every rank but 0.
        parts: What the stage's fingerprint is made of; checkpoints name it, and are refused where it differs.
        reached: Where a signal would end the build now, as the end of "NAME stopped ...".
    """

    stage: str
    recipe: Recipe
    resolved: dict[str, Any]
    folder: Path
    inputs: dict[str, Path]
    resume: bool
    rank: int
    world_size: int
    console: Console
    parts: dict[str, str] = field(default_factory=dict)
    reached: str = "before it was finished"
    metrics: dict[str, Any] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    volatile: list[str] = field(default_factory=list)

    @property
    def seed(self) -> int:
        """The recipe's seed."""
        return self.recipe.seed

    @property
    def work(self) -> Path:
        """A folder for checkpoints and the like: it survives an interruption, and is removed at completion."""
        path = self.folder / WORK
        path.mkdir(parents=True, exist_ok=True)
        return path

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Add figures for the manifest.

        Raises:
            TypeError: If a value is not plain JSON.
        """
        self.metrics.update(json.loads(json.dumps(metrics)))

    def provenance(self, record: Mapping[str, Any]) -> None:
        """Add a record of what was really read: files and their digests, the commit of a hub repository, rows."""
        self.sources.append(json.loads(json.dumps(record)))

    def leave_out_of_digest(self, *patterns: str) -> None:
        """Name files that differ from build to build, such as logs, as `fnmatch` patterns of their relative names."""
        self.volatile.extend(patterns)
