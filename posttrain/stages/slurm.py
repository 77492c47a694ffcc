"""The stages of a recipe as jobs of a Slurm cluster, each after the one before it.

Jobs run one after another and never side by side: a run has its output folder to itself. A stage that trains gets the
recipe's nodes and GPUs and a job script with a launcher on each node; any other gets one node without GPUs.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.assets import asset_folder, launch_file
from posttrain.errors import Submitted, UserError
from posttrain.stages import checks, launch
from posttrain.stages.digest import write_atomically
from posttrain.stages.graph import chain
from posttrain.stages.ranks import launched_place
from posttrain.stages.runner import survey
from posttrain.stages.selection import Selection, select
from posttrain.stages.status import BUILDS, StageStatus, refusals

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe
    from posttrain.recipe.schema_launch import Slurm
    from posttrain.stages.graph import Stage
    from posttrain.stages.session import Loaded

MARK = "POSTTRAIN_SLURM_JOB"  # set by the job scripts to the number of their job
FOLDER = ".slurm"  # in the output folder: the jobs' logs, and which jobs there are
JOBS = "jobs.json"
SCRIPTS = ("train", "lumi")
_NEVER = ("array", "dependency", "parsable", "wrap")  # options of sbatch that this module has in hand


@dataclass(frozen=True)
class Job:
    """A stage to submit: its sbatch command without dependency and with its script, and what its environment adds."""

    stage: str
    command: list[str]
    environment: dict[str, str]


def submits(recipe: Recipe, environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether `posttrain run` submits jobs: the recipe asks for it, and this is neither a job of it nor a launch.

    An allocation that was made by hand has no mark, so jobs are submitted from there too.
    """
    if recipe.launch.slurm is None or launched_place(environment) is not None:
        return False
    return not in_job(environment)


def in_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether this runs in a job of this package's scripts."""
    return MARK in environment and environment[MARK] == environment.get("SLURM_JOB_ID")


def submit(
    loaded: Loaded, *, from_: str | None = None, until: str | None = None, force: Sequence[str] = ()
) -> list[StageStatus]:
    """Submit a job for each stage that is not complete, each to start once the one before it has ended well.

    Args:
        loaded: The recipe; its `launch.slurm` says how.
        from_: The first stage; those before it must be complete.
        until: The last one.
        force: Stages to build again, and with them what is built from them.

    Returns:
        The stages asked for, where all are complete, so that there is nothing to submit.

    Raises:
        Submitted: With the numbers of the jobs, also where they are in the queue already.
        UserError: Something is wrong that can be known now; nothing has been submitted, unless the message says so.
    """
    recipe, slurm = loaded.recipe, loaded.recipe.launch.slurm
    assert slurm is not None
    stages = chain(recipe)
    selection = select(stages, from_=from_, until=until, force=force)
    if problems := _problems(recipe, slurm, selection):
        raise UserError(problems)
    output = Path(recipe.output_dir)
    if queued := _queued(output):
        listed = ", ".join(f"{stage} {number}" for stage, number in queued.items())
        raise Submitted(f"these jobs are in the queue already, so none was submitted: {listed}")
    forced = _forced(selection)
    statuses = {status.stage.name: status for status in survey(loaded, force=forced)}
    before = [statuses[stage.name] for stage in selection.before]
    wanted = [statuses[stage.name] for stage in selection.wanted]
    absent = [status for status in before if status.state in BUILDS]
    problems = refusals([*before, *wanted], output)
    problems += [
        f"{each.stage.name}: {each.reason}, and --from {from_} starts after it; begin there" for each in absent
    ]
    if problems:
        raise UserError(problems)
    todo = [status for status in wanted if status.state in BUILDS]
    if not todo:
        return wanted
    jobs = [job(loaded, status.stage, slurm, force=status.state == "rebuild") for status in todo]
    numbers = _submit_all(jobs, output)
    listed = ", ".join(f"{stage} {number}" for stage, number in numbers.items())
    raise Submitted(f"submitted {listed}; their logs are in {output / FOLDER}")


def slurm_problems(recipe: Recipe) -> list[str]:
    """Return what is wrong with `launch.slurm`, as far as it can be told without Slurm."""
    slurm = recipe.launch.slurm
    if slurm is None:
        return []
    problems = []
    processes = launch.world_size(recipe)
    devices = slurm.nodes * slurm.gpus_per_node
    if slurm.gpus_per_node and devices != processes:
        problems.append(
            f"launch.slurm: {slurm.nodes} x {slurm.gpus_per_node} devices (nodes x gpus_per_node) are {devices}, and "
            f"{processes} processes train; set launch.num_processes={devices}, or other nodes"
        )
    elif processes % slurm.nodes:
        problems.append(f"launch.slurm.nodes: {processes} processes cannot be divided among {slurm.nodes} nodes evenly")
    if slurm.script not in SCRIPTS and not Path(slurm.script).expanduser().is_file():
        problems.append(
            f"launch.slurm.script: there is no file {slurm.script!r}; give {' or '.join(SCRIPTS)}, or the path of a "
            "job script"
        )
    for key, given in (("sbatch_args", slurm.sbatch_args), ("cpu.sbatch_args", slurm.cpu.sbatch_args)):
        for name in given:
            if name.lstrip("-").replace("_", "-") in _NEVER:
                problems.append(f"launch.slurm.{key}.{name}: posttrain sets this itself; leave it out")
    return problems


def _problems(recipe: Recipe, slurm: Slurm, selection: Selection) -> list[str]:
    stages = [*selection.before, *selection.wanted]
    problems = slurm_problems(recipe)
    if shutil.which("sbatch") is None:
        problems.append(
            "launch.slurm: there is no sbatch here; run this on a login node, or give launch.slurm=null to run here"
        )
    problems += checks.missing_files(stages, recipe)
    problems += checks.preconditions(selection.wanted, recipe, launch.world_size(recipe))
    return list(dict.fromkeys(problems + checks.output_problems(recipe)))


def _forced(selection: Selection) -> list[str]:
    """Return the stages to force: each job knows only its own, so what is built from a forced one is forced with it."""
    forced = set(selection.force)
    for stage in selection.wanted:  # each stage comes after its inputs
        if not forced.isdisjoint(stage.inputs):
            forced.add(stage.name)
    return [stage.name for stage in selection.wanted if stage.name in forced]


def job(loaded: Loaded, stage: Stage, slurm: Slurm, *, force: bool = False) -> Job:
    """Return the job of one stage.

    Args:
        loaded: The recipe.
        stage: One of its stages.
        slurm: Its `launch.slurm`.
        force: Whether what the stage has built is built again.
    """
    recipe = loaded.recipe
    output = Path(recipe.output_dir)
    options: dict[str, Any] = {
        "job-name": f"{recipe.name}-{stage.name}",
        "output": str(output / FOLDER / f"{stage.name}-%j.log"),
        "account": slurm.account,
    }
    environment = {}
    scripts = asset_folder("launch") / "slurm"
    if _needs_gpus(stage, recipe):
        options |= {"nodes": slurm.nodes, "partition": slurm.partition, "time": slurm.time}
        options["gpus-per-node"] = slurm.gpus_per_node or None
        options |= _options(slurm.sbatch_args)
        script = scripts / f"{slurm.script}.sbatch" if slurm.script in SCRIPTS else Path(slurm.script).expanduser()
        config = recipe.launch.config
        environment = {
            "CONFIG": str(launch_file(config).resolve()) if config is not None else "",
            "PER_NODE": str(launch.world_size(recipe) // slurm.nodes),
        }
    else:
        cpu = slurm.cpu
        options |= {"partition": cpu.partition or slurm.partition, "time": cpu.time or slurm.time}
        options |= {"cpus-per-task": cpu.cpus, **_options(cpu.sbatch_args)}
        script = scripts / "stage.sbatch"
    given = [f"--{key}" if value is True else f"--{key}={value}" for key, value in options.items() if _is_given(value)]
    own = [*loaded.arguments, "--from", stage.name, "--until", stage.name]
    if force:
        own += ["--force", stage.name]
    return Job(stage.name, [*given, str(script), *own], environment)


def _needs_gpus(stage: Stage, recipe: Recipe) -> bool:
    models = (recipe.teacher, recipe.judge)
    runs_here = recipe.reward is not None or any(model is not None and model.engine == "local" for model in models)
    measures = stage.name in ("quantize", "eval", "release")  # in one process, which takes all devices of its node
    return stage.trains or measures or (stage.name == "generate" and runs_here)


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name.lstrip("-").replace("_", "-"): value for name, value in given.items()}


def _is_given(value: Any) -> bool:
    return value is not None and value is not False


def _submit_all(jobs: Sequence[Job], output: Path) -> dict[str, str]:
    folder = output / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output_dir: {folder} cannot be made ({error.strerror}); choose another output_dir=..."
        ) from error
    numbers: dict[str, str] = {}
    for each in jobs:
        command = ["sbatch", "--parsable"]
        if numbers:
            # A job whose predecessor failed can never start; Slurm would keep it in the queue.
            command += [f"--dependency=afterok:{list(numbers.values())[-1]}", "--kill-on-invalid-dep=yes"]
        command += each.command
        environment = {**os.environ, **each.environment, "POSTTRAIN": str(asset_folder("launch").parent)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        number = done.stdout.strip().rpartition("\n")[2].partition(";")[0]  # of a federation: number;cluster
        if done.returncode != 0 or not re.fullmatch(r"\d+", number):
            said = " ".join((done.stderr or done.stdout).split())
            so_far = f"; submitted before it: {', '.join(numbers.values())} (scancel ends them)" if numbers else ""
            raise UserError(f"{each.stage}: sbatch refused the job: {said}{so_far}. The command: {shlex.join(command)}")
        numbers[each.stage] = number
        write_atomically(folder / JOBS, json.dumps(numbers, indent=2) + "\n")
    return numbers


def _queued(output: Path) -> dict[str, str]:
    """Return the jobs that were submitted for this output and have not ended, by stage."""
    try:
        known = json.loads((output / FOLDER / JOBS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    command = ["squeue", "--noheader", "--format=%A", f"--user={os.getuid()}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"launch.slurm: squeue does not say which jobs are in the queue: {error}; try again") from error
    if done.returncode != 0:
        raise UserError(f"launch.slurm: squeue failed: {' '.join(done.stderr.split())}; try again")
    there = set(done.stdout.split())
    return {stage: number for stage, number in known.items() if number in there}
