"""What there is in an output folder, and what a recipe would have done about it. Reads only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from posttrain.differences import INPUT, changed_parts, describe
from posttrain.stages.digest import Digests
from posttrain.stages.fingerprint import Fingerprint, fingerprint
from posttrain.stages.folder import building_folder, finished, has_content
from posttrain.stages.manifest import Manifest
from posttrain.stages.portable import portable

if TYPE_CHECKING:
    from posttrain.stages.graph import Stage

State = Literal["reuse", "build", "resume", "rebuild", "stale", "broken"]
BUILDS: tuple[State, ...] = ("build", "resume", "rebuild")
REFUSED: tuple[State, ...] = ("stale", "broken")


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """What would happen to one stage.

    Attributes:
        stage: The stage.
        state: `reuse` it; `build` it; `resume` an interrupted build; `rebuild` it although it is complete; `stale`: it
            was made from something else and nobody asked to replace it; `broken`: not a folder to touch or to use.
        reason: Why, in a few words.
        folder: Its folder.
        building: Where it is built; None while the digests of its inputs are not known.
        fingerprint: What it should have.
        inputs: `fingerprint` and `digest` of each input stage that is there.
        changed: For a stale stage, the names of the parts of the fingerprint that differ.
    """

    stage: Stage
    state: State
    reason: str
    folder: Path
    building: Path | None
    fingerprint: Fingerprint
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)


class Survey:
    """The fingerprints of a chain, against which its folders are examined as often as needed.

    Args:
        stages: The chain, each stage after its inputs.
        recipe: The recipe, for the files it names.
        resolved: The recipe as plain values.
        digests: Identities of those files.
        force: Names of stages to rebuild even if they are complete.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        recipe: Any,
        resolved: Mapping[str, Any],
        digests: Digests,
        force: Collection[str] = (),
    ) -> None:
        self.stages = list(stages)
        self.output = Path(recipe.output_dir)
        self._force = set(force)
        self._folders = {stage.name: self.output / stage.folder for stage in stages}
        self._written: dict[str, dict[str, str]] = {}
        self.fingerprints: dict[str, Fingerprint] = {}
        plain = portable(resolved)
        for stage in self.stages:
            files = stage.files(recipe)
            contents = {file.key: digests.of(file.path) for file in files if file.path is not None}
            inputs = {name: self.fingerprints[name].value for name in stage.inputs}
            self._written[stage.name] = {file.key: file.written for file in files}
            self.fingerprints[stage.name] = fingerprint(stage, plain, inputs, contents)

    def all(self) -> list[StageStatus]:
        """Examine every stage, taking for granted that those before it are rebuilt where they would be."""
        rebuilt: set[str] = set()
        statuses = []
        for stage in self.stages:
            status = self.examine(stage, rebuilt)
            if status.state == "rebuild":
                rebuilt.add(stage.name)
            statuses.append(status)
        return statuses

    def examine(self, stage: Stage, rebuilt: Set[str] = frozenset()) -> StageStatus:
        """Say what is to be done about a stage as things are on the disk.

        Args:
            stage: One of the chain.
            rebuilt: Stages that this run replaces or has replaced: what was built from them follows them.
        """
        folder, want = self._folders[stage.name], self.fingerprints[stage.name]
        inputs = self._inputs(stage)
        building = None
        if len(inputs) == len(stage.inputs):
            digests = {name: entry["digest"] for name, entry in inputs.items()}
            building = building_folder(self.output, stage.folder, want.value, digests)

        def status(state: State, reason: str, changed: Sequence[str] = ()) -> StageStatus:
            return StageStatus(
                stage=stage,
                state=state,
                reason=reason,
                folder=folder,
                building=building,
                fingerprint=want,
                inputs=inputs,
                changed=list(changed),
            )

        if not folder.exists():
            if building is not None and finished(building, want.value):
                return status("resume", "it is complete, only not yet in its place")
            if building is not None and (stage.trains or stage.resumes) and has_content(building):
                return status("resume", "it was interrupted")
            return status("build", "it is not there yet")
        if not folder.is_dir():
            return status("broken", f"{folder} is a file, not a finished stage; move it away")
        try:
            have = Manifest.read(folder)
        except FileNotFoundError:
            return status("broken", f"{folder} has no manifest.json, so it is not a finished stage; move it away")
        except (ValueError, OSError) as error:
            return status("broken", f"{folder}/manifest.json cannot be read ({error}); move the folder away")
        if have.stage != stage.name:
            return status("broken", f"{folder} holds the stage {have.stage!r}; move it away")
        return self._compare(have, inputs, rebuilt, status)

    def _compare(self, have: Manifest, inputs: Mapping[str, Any], rebuilt: Set[str], status: Any) -> StageStatus:
        name = have.stage
        want = self.fingerprints[name]
        folder = self._folders[name]
        changed = changed_parts(have.parts, want.parts) if have.fingerprint != want.value else []
        other = [
            f"{INPUT}{key}" for key, now in inputs.items() if have.inputs.get(key, {}).get("digest") != now["digest"]
        ]
        changed += [part for part in other if part not in changed]
        only_inputs = bool(changed) and all(part.startswith(INPUT) for part in changed)
        result: StageStatus
        if name in self._force:
            result = status("rebuild", "it is forced")
        elif only_inputs and not rebuilt.isdisjoint(inputs):
            sources = ", ".join(part.removeprefix(INPUT) for part in changed)
            result = status("rebuild", f"{sources}, which it is built from, is rebuilt")
        elif changed:
            shown = [describe(part, have.parts, want.parts, self._written[name]) for part in changed[:3]]
            more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
            result = status("stale", f"{folder} was made from something else ({'; '.join(shown)}{more})", changed)
        elif damage := have.damage(folder):
            more = f", and {len(damage) - 1} more" if len(damage) > 1 else ""
            result = status("broken", f"{folder} is damaged ({damage[0]}{more}); rebuild it with --force {name}")
        else:
            waits = [stage for stage in rebuilt if f"{INPUT}{stage}" in want.parts]
            result = status("reuse", f"it is complete if {waits[0]} comes out as before" if waits else "it is complete")
        return result

    def _inputs(self, stage: Stage) -> dict[str, dict[str, str]]:
        found = {}
        for name in stage.inputs:
            try:
                manifest = Manifest.read(self._folders[name])
            except (FileNotFoundError, NotADirectoryError, ValueError):
                continue
            found[name] = {"fingerprint": manifest.fingerprint, "digest": manifest.digest}
        return found


def refusals(statuses: Sequence[StageStatus], output: Path) -> list[str]:
    """Return one problem for each stage that may not be touched or used, and the ways out."""
    refused = [status for status in statuses if status.state in REFUSED]
    found = [f"{status.stage.name}: {status.reason}" for status in refused]
    stale = [status for status in refused if status.state == "stale"]
    if stale:
        # Forcing the first in a line is enough: what is built from it follows.
        follows = {
            status.stage.name
            for status in stale
            if all(part.startswith(INPUT) for part in status.changed)
            and any(other.stage.name in status.stage.inputs for other in stale)
        }
        names = [status.stage.name for status in stale if status.stage.name not in follows]
        flags = " ".join(f"--force {name}" for name in names)
        found.append(
            f"choose another folder with output_dir=..., or rebuild with {flags} (the old folders are kept in "
            f"{output}/.replaced)"
        )
    return found
