"""How several processes of one launch agree on what to build, by files in the output folder.

Rank 0 alone looks at the output folder and decides; it publishes each decision, and each stage's completion, in one
file that the other ranks read. No process group is needed for this, so a stage that does not train can take hours on
rank 0 without a collective timing out.

A file left by an earlier launch must not be believed. Every other rank therefore leaves a greeting with a number of
its own, fresh at each start, and believes the file only while it repeats that number: then it was written by a rank 0
that ran after this process had started. What a rank says about its progress carries rank 0's token in turn.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from posttrain.errors import EXIT_USER_ERROR, Interrupted, UserError
from posttrain.stages.digest import sha256_text, write_atomically
from posttrain.stages.folder import make_folder, remove_empty

RANKS = ".ranks"
_POLL = 0.2  # seconds
_SILENCE = 1800.0  # seconds until a rank that has heard nothing at all from rank 0 gives up
_FAREWELL = 60.0  # seconds that rank 0 waits at the end for the others to have read the last word
_FAREWELL_AFTER_FAILURE = 5.0  # seconds; others may be stuck in a collective, and the launcher ends them
_PLACE_VARIABLES = (
    ("RANK", "WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)
_LAUNCH_VARIABLES = (
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
)


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is."""

    rank: int = 0
    world_size: int = 1


def launched_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Read the place that torch's launcher or an MPI gave this process; None if none of them started it."""
    for rank, size in _PLACE_VARIABLES:
        if rank in environment and size in environment:
            return Place(int(environment[rank]), int(environment[size]))
    return None


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Return the place of this process; without a launcher it is the only one."""
    return launched_place(environment) or Place()


def meeting_folder(output: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Return where the processes of one launch leave their files."""
    launch = "\n".join(environment.get(name, "") for name in _LAUNCH_VARIABLES)
    return output / RANKS / sha256_text(launch)[:12]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there yet, or left by something else
        return {}
    return content if isinstance(content, dict) else {}


class Leader:
    """Rank 0's side. With one process it writes nothing.

    Args:
        output: The output folder.
        here: This process's place.
    """

    def __init__(self, output: Path, here: Place) -> None:
        self._output = output
        self._others = range(1, here.world_size)
        self._folder = meeting_folder(output)
        self._state: dict[str, Any] = {"token": secrets.token_hex(16), "ranks": {}, "stages": {}}
        self._made: list[Path] = []
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._answering: threading.Thread | None = None

    def __enter__(self) -> Leader:
        if self._others:
            self._made = make_folder(self._folder)
            self._answering = threading.Thread(target=self._answer, name="posttrain-ranks", daemon=True)
            self._answering.start()
        return self

    def _answer(self) -> None:
        while not self._ended.wait(_POLL):
            greetings = {rank: self._greeting(rank).get("number") for rank in self._others}
            heard = {str(rank): number for rank, number in greetings.items() if number}
            if heard != self._state["ranks"]:
                self._publish(ranks=heard)

    def _greeting(self, rank: int) -> dict[str, Any]:
        return _read(self._folder / f"rank-{rank}.json")

    def _publish(self, **changes: Any) -> None:
        with self._guard:
            self._state.update(changes)
            if self._others:
                write_atomically(self._folder / "decisions.json", json.dumps(self._state))

    def decide(self, stage: str, **decision: Any) -> None:
        """Tell the other ranks what is done about a stage: `action`, `building`, `resume`."""
        self._publish(stages={**self._state["stages"], stage: decision})

    def done(self, stage: str) -> None:
        """Tell the other ranks that a stage's folder is in place."""
        self.decide(stage, **{**self._state["stages"][stage], "done": True})

    def wait_for_builds(self, stage: str) -> None:
        """Wait until every other rank has returned from a stage's build.

        Raises:
            RuntimeError: If one of them failed.
        """
        missing = set(self._others)
        while missing:
            for rank in sorted(missing):
                said = self._greeting(rank)
                if said.get("token") != self._state["token"]:
                    continue
                if said.get("failed"):
                    raise RuntimeError(f"process {rank} failed in stage {stage}: {said['failed']}")
                if stage in said.get("built", ()):
                    missing.discard(rank)
            if missing:
                time.sleep(_POLL)

    def clear_other_launches(self) -> None:
        """Remove what killed launches left; to be called while holding the output folder's lock."""
        for folder in (self._output / RANKS).glob("*"):
            if folder != self._folder:
                shutil.rmtree(folder, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._others:
            return
        if error is None:
            self._publish(ended=True)
        else:
            code = EXIT_USER_ERROR if isinstance(error, UserError) else 1
            self._publish(failed=True, code=error.exit_code if isinstance(error, Interrupted) else code)
        until = time.monotonic() + (_FAREWELL if error is None else _FAREWELL_AFTER_FAILURE)
        # A rank that starts late is still answered by the thread meanwhile.
        while time.monotonic() < until and not all(self._has_left(rank) for rank in self._others):
            time.sleep(_POLL)
        self._ended.set()
        if self._answering is not None:
            self._answering.join()
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):  # not empty: there is output, or another launch
            (self._output / RANKS).rmdir()
            self._output.rmdir()  # whichever process made it
            remove_empty([path for path in self._made if path in self._output.parents])

    def _has_left(self, rank: int) -> bool:
        said = self._greeting(rank)
        return bool(said.get("left")) and said.get("token") == self._state["token"]


class Follower:
    """The side of every rank but 0: it does as it is told and prints nothing.

    Args:
        output: The output folder, on a file system that all processes share.
        here: This process's place.

    Raises:
        SystemExit: From any method, once rank 0 has failed or gone, with the exit code that rank 0 gave.
        UserError: If rank 0 cannot be heard from here.
    """

    def __init__(self, output: Path, here: Place) -> None:
        self._output = output
        self._folder = meeting_folder(output)
        self._rank = here.rank
        self._number = secrets.token_hex(16)
        self._token: str | None = None
        self._built: list[str] = []
        self._failed: str | None = None
        self._heard = time.monotonic()

    def __enter__(self) -> Follower:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._say()
        return self

    def _say(self, **more: Any) -> None:
        greeting = {"number": self._number, "token": self._token, "built": self._built, **more}
        write_atomically(self._folder / f"rank-{self._rank}.json", json.dumps(greeting))

    def _wait(self, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            state = _read(self._folder / "decisions.json")
            if state.get("ranks", {}).get(str(self._rank)) == self._number:
                self._heard = time.monotonic()
                if self._token is None:
                    self._token = state["token"]
                    self._say()
                if state.get("failed"):
                    raise SystemExit(state["code"])
                if ready(state):
                    return state
            elif time.monotonic() - self._heard > (_SILENCE if self._token is None else _FAREWELL):
                if self._token is not None:
                    raise SystemExit(1)
                raise UserError(
                    f"process {self._rank} has heard nothing from process 0 in {self._output}; "
                    "put output_dir on a file system that all nodes share"
                )
            time.sleep(_POLL)

    def decision(self, stage: str) -> dict[str, Any]:
        """Wait for what rank 0 has decided about a stage; empty if it ended without coming to it."""
        state = self._wait(lambda state: stage in state["stages"] or bool(state.get("ended")))
        return dict(state["stages"].get(stage, {}))

    def fail(self, reason: str) -> None:
        """Say that this process cannot go on."""
        self._failed = reason

    def built(self, stage: str) -> None:
        """Say that this process has returned from a stage's build."""
        self._built.append(stage)
        self._say()

    def wait_until_done(self, stage: str) -> None:
        """Wait until the stage's folder is in place."""
        self._wait(lambda state: bool(state["stages"].get(stage, {}).get("done")))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left: dict[str, Any] = {"left": True}
        if error is not None and not isinstance(error, (SystemExit, Interrupted)):
            self._failed = f"{type(error).__name__}: {error}"
        if self._failed is not None:
            left["failed"] = self._failed
        with suppress(OSError):  # rank 0 has cleared up already
            self._say(**left)
