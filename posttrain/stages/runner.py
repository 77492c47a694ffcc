"""Building the stages of a recipe: decide, lock, build, put in place."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.errors import EXIT_USER_ERROR, Interrupted, UserError
from posttrain.stages import checks, launch
from posttrain.stages.digest import Digests
from posttrain.stages.finish import put_in_place, write_manifest
from posttrain.stages.folder import BUILDING, discard_failed, finished, leftovers, open_building
from posttrain.stages.graph import chain
from posttrain.stages.lock import Lock
from posttrain.stages.manifest import MANIFEST
from posttrain.stages.ranks import Follower, Leader, place
from posttrain.stages.selection import select
from posttrain.stages.session import Loaded, Session, determining
from posttrain.stages.status import BUILDS, REFUSED, StageStatus, Survey, refusals
from posttrain.stopping import ending_at_once

if TYPE_CHECKING:
    from rich.console import Console

    from posttrain.stages.graph import Stage


@dataclass(frozen=True)
class Done:
    """What a run did about one stage: `action` is `reuse`, `build`, `resume` or `rebuild`."""

    stage: str
    action: str
    folder: Path


def survey(loaded: Loaded, *, force: Sequence[str] = (), stages: Sequence[Stage] | None = None) -> list[StageStatus]:
    """Say what `run` would do about each stage of a recipe, and why. Writes nothing.

    Raises:
        UserError: If the recipe names files that do not exist.
    """
    all_stages = list(stages) if stages is not None else chain(loaded.recipe)
    selection = select(all_stages, force=force)
    missing = [problem for stage in all_stages for file in stage.files(loaded.recipe) if (problem := file.missing())]
    if missing:
        raise UserError(list(dict.fromkeys(missing)))
    return Survey(all_stages, loaded.recipe, determining(loaded), Digests(), selection.force).all()


def run(
    loaded: Loaded,
    *,
    from_: str | None = None,
    until: str | None = None,
    target: str | Sequence[str] | None = None,
    force: Sequence[str] = (),
    console: Console | None = None,
    stages: Sequence[Stage] | None = None,
) -> list[Done]:
    """Build the stages of a recipe that are not there yet.

    A stage that is complete and was made from the same things is used as it is; an unfinished one is continued if it
    trains and the same things determine it. Every process of a launch calls this with the same arguments; rank 0
    decides, prints and writes, the others take part in the stages that train.

    Args:
        loaded: The recipe.
        from_: The first stage to build; those before it must be complete.
        until: The last one.
        target: Instead of both, a stage, or several, to build with those they are made from.
        force: Stages to build even if they are complete, and with them what was built from them where the result
            differs. What they had built stays in `.replaced/`. A forced build that was interrupted is continued.
        console: Where to print; by default standard output.
        stages: A chain to use instead of the recipe's.

    Returns:
        What was done about each stage that was asked for, in order; from ranks other than 0 nothing.

    Raises:
        UserError: If something is wrong that the user can correct; nothing has been written then, unless the message
            is about what a stage found while it was built.
        Interrupted: In rank 0, if there was a Ctrl-C or a SIGTERM.
        SystemExit: With the exit code of a launcher that failed.
    """
    here = place()
    try:
        all_stages = list(stages) if stages is not None else chain(loaded.recipe)
        selection = select(all_stages, from_=from_, until=until, target=target, force=force)
        concerned = [*selection.before, *selection.wanted]
        processes = launch.world_size(loaded.recipe)
        files = checks.missing_files(concerned, loaded.recipe)
        problems = files + checks.preconditions(selection.wanted, loaded.recipe, processes)
        if problems := problems + checks.output_problems(loaded.recipe):
            raise UserError(list(dict.fromkeys(problems)))
    except UserError:
        if here.rank == 0:
            raise
        raise SystemExit(EXIT_USER_ERROR) from None  # rank 0 finds the same, and says it
    from rich.console import Console

    shown = (console or Console()) if here.rank == 0 else Console(quiet=True)
    session = Session(loaded, concerned, selection, here, shown)
    return _lead(session) if here.rank == 0 else _follow(session)


def _lead(session: Session) -> list[Done]:
    with Leader(session.output, session.here) as leader, ending_at_once(session.stopped):
        surveyed = session.survey()
        statuses = surveyed.all()
        _refuse(session, statuses)
        wanted = statuses[len(session.selection.before) :]
        if not any(status.state in BUILDS for status in wanted):
            for status in wanted:
                leader.decide(status.stage.name, action="reuse")
            folders = ", ".join(status.stage.folder for status in wanted)
            session.say(f"nothing to do: {folders} in {session.output} are complete")
            return [Done(status.stage.name, "reuse", status.folder) for status in wanted]
        with Lock(session.output) as lock:
            if lock.note:
                session.say(lock.note)
            leader.clear_other_launches()
            _refuse(session, surveyed.all())  # again, now that nobody else can change it
            return _build_all(session, surveyed, leader, lock)


def _refuse(session: Session, statuses: Sequence[StageStatus]) -> None:
    problems = refusals(statuses, session.output)
    absent = [status for status in statuses[: len(session.selection.before)] if status.state in BUILDS]
    for status in absent:
        command = shlex.join(["posttrain", "run", *session.loaded.arguments, "--until", status.stage.name])
        problems.append(
            f"{status.stage.name}: {status.reason}, and this command starts after it; build it with {command}"
        )
    if problems:
        raise UserError(problems)


def _build_all(session: Session, surveyed: Survey, leader: Leader, lock: Lock) -> list[Done]:
    done = []
    rebuilt: set[str] = set()
    for stage in session.selection.wanted:
        status = surveyed.examine(stage, rebuilt)
        if status.state in REFUSED:  # only now: an input was built anew and came out different
            raise UserError(refusals([status], session.output))
        if status.state == "reuse":
            leader.decide(stage.name, action="reuse")
            session.say(f"{stage.name}: {status.folder} is complete")
        elif stage.trains and launch.plan(session.recipe).launches:
            _launch(session, surveyed, status, lock)
        else:
            _build(session, status, leader)
        if status.state == "rebuild":
            rebuilt.add(stage.name)
        done.append(Done(stage.name, status.state, status.folder))
    return done


def _build(session: Session, status: StageStatus, leader: Leader) -> None:
    stage, building = status.stage, status.building
    assert building is not None, f"the inputs of {stage.name} are not there"
    for other in leftovers(session.output, stage.folder, building):
        session.say(f"{stage.name}: an unfinished build from something else stays in {other}")
    if finished(building, status.fingerprint.value) is not None:
        leader.decide(stage.name, action="place")
    else:
        times = {"started": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        clock = time.monotonic()
        resume = open_building(building, resumable=stage.trains or stage.resumes)
        parts = status.fingerprint.parts
        leader.decide(stage.name, action="build", building=building.name, resume=resume, parts=parts)
        session.say(f"{stage.name}: {'continuing' if resume else 'building'} {status.folder} ({status.reason})")
        context = session.context(stage, building, resume, parts)
        try:
            stage.build(context)
        except UserError:
            discard_failed(building, keep_files=stage.trains or stage.keeps)
            raise
        if stage.trains:
            leader.wait_for_builds(stage.name)
        write_manifest(context, status, {**times, "seconds": round(time.monotonic() - clock, 1)})
    if kept := put_in_place(building, status.folder):
        session.say(f"{stage.name}: what was in {status.folder} is kept in {kept}")
    session.at = None
    leader.done(stage.name)


def _launch(session: Session, surveyed: Survey, status: StageStatus, lock: Lock) -> None:
    stage = status.stage
    arguments = list(session.loaded.arguments)
    if status.state == "rebuild":
        arguments += ["--force", stage.name]
    command = launch.launch_command(launch.plan(session.recipe), stage.name, arguments)
    session.say(f"{stage.name}: {shlex.join(command)}")
    before = _written(status)
    code = launch.run_launched(command, launch.launch_environment(session.recipe, lock), lock)
    if code != 0:
        session.say(f"{stage.name}: the launcher ended with exit code {code}; the same command goes on from there")
        raise SystemExit(code if code > 0 else 128 - code)
    after = surveyed.examine(stage)
    if _written(after) in (None, before):
        raise RuntimeError(f"{stage.name}: the launcher ended without an error, but {status.folder} was not built")


def _written(status: StageStatus) -> tuple[int, int] | None:
    try:
        stat = (status.folder / MANIFEST).stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _follow(session: Session) -> list[Done]:
    try:
        _take_part(session)
    except Interrupted as error:
        # As rank 0 ends. With another code the launcher would take it for a failure and, 30 seconds later, kill those
        # that are still writing their part of the checkpoint.
        raise SystemExit(error.exit_code) from None
    return []


def _take_part(session: Session) -> None:
    with Follower(session.output, session.here) as follower, ending_at_once(session.stopped):
        for stage in session.selection.wanted:
            decision = follower.decision(stage.name)
            if decision.get("action") == "build" and stage.trains:
                building = session.output / BUILDING / decision["building"]
                context = session.context(stage, building, decision["resume"], decision["parts"])
                try:
                    stage.build(context)
                except UserError as error:  # rank 0 meets the same and says it, or says that this process failed
                    follower.fail(str(error))
                    raise SystemExit(EXIT_USER_ERROR) from None
                follower.built(stage.name)
            if decision.get("action") in ("build", "place"):
                follower.wait_until_done(stage.name)
            session.at = None
