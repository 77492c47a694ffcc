"""All checks of a recipe, one after another: none hides what another finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from posttrain.errors import UserError
from posttrain.preflight.findings import Finding, error, note, ordered
from posttrain.preflight.subject import Subject
from posttrain.stages import checks, launch
from posttrain.stages.graph import chain
from posttrain.stages.runner import survey
from posttrain.stages.slurm import slurm_problems
from posttrain.stages.status import refusals

if TYPE_CHECKING:
    from posttrain.planning.hardware import Hardware
    from posttrain.stages.session import Loaded

Check = Callable[[Subject], Iterator[Finding]]


def examine(
    loaded: Loaded,
    *,
    forward: bool = False,
    hardware: Hardware | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Finding]:
    """Check a recipe in every respect; nothing is built, and nothing is written but digests of files in the cache.

    Args:
        loaded: The recipe.
        forward: Whether to load the real model and run a batch forward and backward, too.
        hardware: The devices that it is meant for, if not those of this machine.
        say: Gets the name of each check before it begins.

    Returns:
        What was found, errors first.
    """
    subject, found = _subject(loaded, hardware)
    for title, check in _checks(forward):
        say(title)
        try:
            found += check(subject)
        except UserError as problem:  # what a check needs is not there
            found += [error(text) for text in problem.problems]
    return ordered(found)


def _subject(loaded: Loaded, hardware: Hardware | None) -> tuple[Subject, list[Finding]]:
    """Return what is to be checked, and what the stages themselves have to say against it."""
    recipe = loaded.recipe
    stages = chain(recipe)
    problems: list[str] = []
    try:
        processes = launch.world_size(recipe)
    except UserError as problem:
        problems += problem.problems
        processes = recipe.launch.num_processes
    subject = Subject(loaded, stages, processes, hardware=hardware)
    if not stages:
        return subject, [error("the recipe asks for no stage; give it a section cpt, data, sft or dpo")]
    missing = checks.missing_files(stages, recipe)
    problems += missing + checks.output_problems(recipe)
    for stage in stages:
        try:
            problems += stage.check(recipe, processes)
        except UserError as problem:
            problems += problem.problems
    if not problems or not (missing or checks.output_problems(recipe)):
        statuses = survey(loaded)
        subject.statuses = {status.stage.name: status for status in statuses}
        problems += refusals(statuses, subject.output)
    problems += slurm_problems(recipe) if not any(text.startswith("launch.config") for text in problems) else []
    complete = [stage.name for stage in stages if subject.complete(stage.name)]
    left = [stage.name for stage in stages if stage.name not in complete]
    found = [error(text) for text in problems]
    if subject.statuses:
        built = f"; complete: {', '.join(complete)}" if complete else ""
        found.append(note(f"stages: to be built: {', '.join(left) or 'none'}{built}"))
    return subject, found


def _checks(forward: bool) -> list[tuple[str, Check]]:
    from posttrain.preflight import (
        devices,
        disk,
        endpoints,
        launch_file,
        licences,
        model,
        packages,
        rows,
        template,
    )

    found: list[tuple[str, Check]] = [
        ("packages", packages.check),
        ("launch file", launch_file.check),
        ("devices", devices.check),
        ("model", model.check),
        ("template and tokenizer", template.check),
        ("rows", rows.check),
        ("licences", licences.check),
        ("disk", disk.check),
        ("endpoints", endpoints.check),
    ]
    if forward:
        from posttrain.preflight import forward as on_model

        found.append(("first batch", on_model.check))
    return found
