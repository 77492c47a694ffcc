"""`posttrain plan`: what a run would do, and why. Starts nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from posttrain.cli.options import ForceOption, OverridesArgument, RecipeArgument

if TYPE_CHECKING:
    from posttrain.recipe import LoadedRecipe
    from posttrain.stages.status import StageStatus


def plan(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    force: ForceOption = None,
    resolved: Annotated[
        bool, typer.Option("--recipe", help="Print the resolved recipe instead, and where each value came from.")
    ] = False,
    probe: Annotated[
        int | None,
        typer.Option(
            "--probe",
            metavar="ROWS",
            min=1,
            help="Have the models write so many rows of each entry of generate (50 tell enough), keep none, and say "
            "how many tokens and hours all will take.",
        ),
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="With --probe: how many GPUs the server runs on.")] = 1,
    hardware: Annotated[
        str | None,
        typer.Option(
            "--hardware",
            metavar="NAME",
            help="Devices to reckon memory, time and energy for, instead of launch.hardware: MI250X (one die), "
            "A100-40G, A100-80G, H100, H200 or RTX4090.",
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option("--devices", metavar="N", min=1, help="How many, instead of launch.num_processes.")
    ] = None,
) -> None:
    """Say what a run would build, resume or reuse, and why, and what the training will take; start nothing."""
    from posttrain.recipe import load, render_resolved

    changes = list(overrides or ())
    loaded = load(recipe, changes)
    if resolved:
        print(render_resolved(loaded), end="")
        return
    if probe is not None:
        from posttrain.planning.generation import probe as write_some
        from posttrain.planning.generation import table

        estimates = write_some(loaded.recipe, probe)
        for line in table(estimates, gpus):
            print(line)
        lost = sum(each.failed for each in estimates)
        print(
            f"from {sum(each.probed for each in estimates)} rows, of which {lost} failed; at the rate of the probe, "
            "which a server that is kept busy for longer exceeds"
        )
        return
    from posttrain.planning.chain import plan_training
    from posttrain.stages import launch
    from posttrain.stages.runner import survey

    if devices is not None:
        changes.append(f"launch.num_processes={devices}")
        loaded = load(recipe, changes)
    statuses = survey(loaded, force=list(force or ()))
    width = max((len(status.stage.name) for status in statuses), default=0)
    for status in statuses:
        print(f"{status.stage.name:<{width}} {status.state:<8} {status.folder}  ({status.reason})")
    for line in plan_training(loaded.recipe, statuses, hardware, devices):
        print(line)
    how = launch.plan(loaded.recipe)
    if jobs := _jobs(loaded, statuses, how.processes, hardware):
        print(f"training runs in {how.processes} processes, as jobs of Slurm:")
        for line in jobs:
            print("  " + line)
    elif how.launches:
        print(f"training runs in {how.processes} processes:")
        for status in statuses:
            if status.stage.trains:
                print("  " + shlex.join(launch.launch_command(how, status.stage.name, [recipe, *changes])))
    elif any(status.stage.trains for status in statuses):
        print("training runs in one process: " + shlex.join(["posttrain", "run", recipe, *changes]))


def _jobs(loaded: LoadedRecipe, statuses: Sequence[StageStatus], processes: int, hardware: str | None) -> list[str]:
    """Return the commands that train on several machines, or none where one machine has all the devices."""
    from posttrain.planning.hardware import named
    from posttrain.stages import slurm

    section, stages = loaded.recipe.launch, [status.stage for status in statuses if status.stage.trains]
    if section.slurm is not None:
        jobs = [slurm.job(loaded, stage, section.slurm, force=False) for stage in stages]
        return [
            shlex.join([*(f"{key}={value}" for key, value in job.environment.items()), "sbatch", *job.command])
            for job in jobs
        ]
    device = hardware or section.hardware
    if device is None or processes <= named(device).per_node:
        return []
    each = named(device).per_node
    command = ["sbatch", f"--nodes={-(-processes // each)}", f"--gpus-per-node={each}", "launch/slurm/train.sbatch"]
    if section.config is not None:
        command.insert(0, f"CONFIG={section.config}")
    return [shlex.join([*command, *loaded.arguments, "--from", stage.name, "--until", stage.name]) for stage in stages]
