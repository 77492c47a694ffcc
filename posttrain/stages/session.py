"""What a run of the chain is about, in one process: the recipe, the stages concerned, and the build under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from posttrain.stages.context import Context
from posttrain.stages.digest import Digests
from posttrain.stages.fingerprint import hashed_where_masked
from posttrain.stages.ranks import Place
from posttrain.stages.selection import Selection
from posttrain.stages.status import Survey

if TYPE_CHECKING:
    from rich.console import Console

    from posttrain.recipe.schema import Recipe
    from posttrain.stages.graph import Stage


class Loaded(Protocol):
    """What is needed of a loaded recipe."""

    @property
    def recipe(self) -> Recipe:
        """The recipe."""

    @property
    def arguments(self) -> Sequence[str]:
        """Name, `key=value` arguments and options by which another process loads the same."""

    def resolved(self, show_secrets: bool = False) -> dict[str, Any]:
        """Return it as plain values; those from the environment are masked unless `show_secrets`."""


def determining(loaded: Loaded) -> dict[str, Any]:
    """Return a recipe as plain values in which those from the environment are told apart by hash, and not shown."""
    return dict(hashed_where_masked(loaded.resolved(show_secrets=True), loaded.resolved()))


@dataclass
class Session:
    """One run, in one process.

    Attributes:
        loaded: The recipe.
        stages: Those asked for and those they are made from, in order.
        selection: Which of them are asked for.
        here: Which of how many processes this is.
        console: Where to print; silent on every rank but 0.
        at: The build under way, until it is in place.
    """

    loaded: Loaded
    stages: Sequence[Stage]
    selection: Selection
    here: Place
    console: Console
    at: Context | None = field(default=None, init=False)

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.loaded.recipe

    @property
    def output(self) -> Path:
        """Its output folder."""
        return Path(self.recipe.output_dir)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stopped(self) -> str:
        """Say what a signal has ended, and where."""
        return "stopped with no stage under way" if self.at is None else f"{self.at.stage} stopped {self.at.reached}"

    def survey(self) -> Survey:
        """Look at what there is of the stages."""
        return Survey(self.stages, self.recipe, determining(self.loaded), Digests(say=self.say), self.selection.force)

    def context(self, stage: Stage, building: Path, resume: bool, parts: dict[str, str]) -> Context:
        """Return what a stage's build is given; from now on it is the one under way."""
        folders = {other.name: self.output / other.folder for other in self.stages}
        self.at = Context(
            stage=stage.name,
            recipe=self.recipe,
            resolved=self.loaded.resolved(),
            folder=building,
            inputs={name: folders[name] for name in stage.inputs},
            resume=resume,
            rank=self.here.rank,
            world_size=self.here.world_size,
            console=self.console,
            parts=parts,
        )
        if stage.trains:
            self.at.reached = "before its first step, so nothing was lost"
        return self.at
