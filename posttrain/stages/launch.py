"""Starting the training stages in several processes, through accelerate."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from posttrain.assets import launch_file, read_launch_file
from posttrain.errors import Interrupted, UserError
from posttrain.stages.lock import OWNER_VARIABLE
from posttrain.stages.ranks import launched_place

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe
    from posttrain.stages.lock import Lock

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Plan:
    """How the training stages run.

    Attributes:
        processes: How many processes train together.
        config: The accelerate configuration file to launch them with, if any.
        launches: Whether this process has to start them.
    """

    processes: int
    config: str | None = None
    launches: bool = False


def plan(recipe: Recipe, environment: Mapping[str, str] = os.environ) -> Plan:
    """Return how the training stages run from here.

    Inside a launch its processes count, whatever the recipe says; otherwise the recipe's `launch` section does.

    Raises:
        UserError: If `launch.config` cannot be read.
    """
    here = launched_place(environment)
    if here is not None:
        return Plan(here.world_size)
    if "ACCELERATE_MIXED_PRECISION" in environment:  # accelerate started this process alone
        processes = dropped_processes(environment) or 1
        return Plan(processes, launches=processes > 1)
    section = recipe.launch
    if section.config is not None:
        processes = section.num_processes if section.num_processes > 1 else _config_processes(section.config)
        return Plan(processes, section.config, launches=True)
    return Plan(section.num_processes, launches=section.num_processes > 1)


def world_size(recipe: Recipe) -> int:
    """Return how many processes train together, see `plan`."""
    return plan(recipe).processes


def _config_processes(config: str) -> int:
    count = read_launch_file(config).get("num_processes")
    if not isinstance(count, int) or count < 1:
        raise UserError(f"launch.config: {config} states no num_processes; add it there, or set launch.num_processes")
    return count


def dropped_processes(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return how many processes were asked of accelerate when it started only this one.

    `accelerate launch --cpu --num_processes 2` runs the script once: on CPUs it leaves the multiplying to mpirun. All
    it passes on is the master's address; the number is on the command line of the parent process.
    """
    if "MASTER_ADDR" not in environment:
        return None
    import psutil

    parent = psutil.Process().parent()
    return launcher_processes(parent.cmdline()) if parent is not None else None


def launcher_processes(command: Sequence[str]) -> int | None:
    """Return the number of processes of an accelerate command, from its options or its configuration file.

    Options of `posttrain` come later on the same command line, and have other names.
    """
    starts = ("accelerate", "accelerate-launch", "accelerate.commands.launch", "accelerate.commands.accelerate_cli")
    at = next((index for index, word in enumerate(command) if os.path.basename(word) in starts), None)
    if at is None:
        return None
    words = [part for word in command[at + 1 :] for part in (word.split("=", 1) if word.startswith("--") else [word])]
    options = {name.replace("-", "_"): value for name, value in itertools.pairwise(words)}
    if "__num_processes" in options:
        return int(options["__num_processes"])
    return _config_processes(options["__config_file"]) if "__config_file" in options else None


def launch_command(plan: Plan, stage: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that builds one stage in several processes.

    Args:
        plan: How many, and by which configuration.
        stage: The stage's name, which is a subcommand of `posttrain` too.
        arguments: What follows the subcommand: the recipe's path, overrides, options.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    if plan.config is not None:
        command += ["--config_file", str(launch_file(plan.config)), "--num_processes", str(plan.processes)]
    else:
        # `--multi_gpu` means torch's own launcher; with `--cpu` accelerate would start one process, whatever the
        # number. The other values are accelerate's defaults, given because it warns about each that is not. Port 0:
        # any that is free.
        command += ["--multi_gpu", "--num_processes", str(plan.processes), "--num_machines", "1"]
        command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return [*command, "-m", "posttrain", stage, *arguments]


def launch_environment(recipe: Recipe, lock: Lock) -> dict[str, str]:
    """Return the environment of the launcher: the lock's token, and where to find this package."""
    environment = dict(os.environ)
    environment[OWNER_VARIABLE] = lock.token
    if recipe.launch.cpu:
        environment["ACCELERATE_USE_CPU"] = "true"
    if (_PACKAGE_PARENT / "pyproject.toml").exists():  # a clone, perhaps run from another folder
        paths = [str(_PACKAGE_PARENT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


def run_launched(command: Sequence[str], environment: Mapping[str, str], lock: Lock) -> int:
    """Run a launcher to its end and return its exit code.

    Ctrl-C reaches the launcher from the terminal; SIGTERM is passed on. Either way its end is waited for, because the
    ranks save their state before they stop. (torch's launcher gives them 30 seconds for it.)

    Raises:
        Interrupted: If there was such a signal, whatever exit code the launcher made of it.
    """
    received: list[int] = []
    handed = () if lock.descriptor is None else (lock.descriptor,)
    process = subprocess.Popen(command, env=dict(environment), pass_fds=handed)

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    former = signal.signal(signal.SIGTERM, forward) if in_main_thread else None
    try:
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                received.append(signal.SIGINT)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, former)
    if received:
        raise Interrupted("the launched processes stopped at what they had saved", received[-1])
    return code
