"""The evaluation: every model answers every task once, then scores, comparisons, table and picture are made."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.evaluate.answers import Answer, answers_file, read_answers, write_answers
from posttrain.evaluate.checkpoints import Checkpoint, load, release
from posttrain.evaluate.kinds.base import How, Task
from posttrain.evaluate.metrics import Measured
from posttrain.evaluate.results import FORMAT, figures, measured, notes_on, write_results
from posttrain.evaluate.table import PICTURE, TABLE, draw, table
from posttrain.evaluate.tasks import expand, make
from posttrain.recipe.schema_evaluate import EvalTask, Evaluation

if TYPE_CHECKING:
    from rich.console import Console

    from posttrain.data.generate.requests import Role
    from posttrain.recipe.schema_generate import Teacher

BATCHES = "batches"  # in the folder for work: batches of answers that are not all there yet


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        settings: The section of the recipe.
        checkpoints: The models, in order.
        folder: Where results go.
        work: A folder that outlives an interruption.
        verdicts: Where what judges say is kept, beside other answers of models.
        seed: Of the bootstrap, and of what a judge is asked again.
        device: A torch device.
        judge: The model that judges, where a task wants one.
        judge_section: Which section of the recipe that is, for messages.
        console: Where to say how far it is.
        read: Told what the samples of each task were read from.
        reached: Told how far it is, as the end of "eval stopped ...", before each task.
    """

    settings: Evaluation
    checkpoints: Sequence[Checkpoint]
    folder: Path
    work: Path
    verdicts: Path
    seed: int
    device: Any
    judge: Teacher | None
    console: Console
    read: Callable[[Mapping[str, Any]], None]
    reached: Callable[[str], None]
    judge_section: Role = "judge"


def evaluate(plan: Plan) -> dict[str, Any]:
    """Measure the models, and write answers, `results.json`, a table and a picture.

    What a model has answered is not asked again after an interruption: whole tasks are kept as files, and of the task
    under way whole batches.

    Returns:
        What `results.json` holds.

    Raises:
        Interrupted: A signal stopped a judge; the same goes on from there.
        UserError: A task's rows or a model cannot be read.
    """
    entries = expand(plan.settings.tasks)
    tasks = [make(entry) for entry in entries]
    for task in tasks:
        assert task.samples, f"{task.name} has no samples"  # all of them are read before any model is
        for record in task.seen:
            plan.read(record)
    wanted = [
        (checkpoint, [task for entry, task in zip(entries, tasks, strict=True) if measures(entry, checkpoint)])
        for checkpoint in plan.checkpoints
    ]
    total = sum(len(task.samples) for _, of_model in wanted for task in of_model)
    with _progress(plan.console, total) as bar:
        for checkpoint, of_model in wanted:
            _answer(plan, checkpoint, of_model, bar)
    return _results(plan, tasks, wanted)


def measures(entry: EvalTask, checkpoint: Checkpoint) -> bool:
    """Say whether a task is measured of a model."""
    return (
        not entry.models
        or checkpoint.name in entry.models
        or (checkpoint.kind == "variant" and "variants" in entry.models)
    )


def _answer(plan: Plan, checkpoint: Checkpoint, tasks: Sequence[Task], bar: _Bar) -> None:
    missing = []
    for task in tasks:
        if answers_file(plan.folder, checkpoint.name, task.name).is_file():
            bar.advance(len(task.samples))
            bar.say(f"{checkpoint.name}: {task.name} is there already")
        else:
            missing.append(task)
    if not missing:
        return
    bar.show(f"loading {checkpoint.name}")
    loaded = load(checkpoint, dtype=plan.settings.dtype, device=plan.device)
    store = plan.work / BATCHES / checkpoint.name
    for task in missing:
        bar.show(f"{checkpoint.name}: {task.name}")
        plan.reached(f"in {checkpoint.name}: {task.name}; the answers that are there are kept")
        answers = task.answer(loaded, How(plan.settings.batch_size, store, bar.advance))
        write_answers(answers_file(plan.folder, checkpoint.name, task.name), answers)
        bar.say(f"{checkpoint.name}: {task.name}: {len(answers):,} samples")
    del loaded
    release(plan.device)
    shutil.rmtree(store, ignore_errors=True)


def _results(plan: Plan, tasks: Sequence[Task], wanted: Sequence[tuple[Checkpoint, Sequence[Task]]]) -> dict[str, Any]:
    settings = plan.settings
    about = {task.name: task.about.as_json(task.samples) for task in tasks}
    found: dict[tuple[str, str], Sequence[Measured]] = {}
    notes: list[str] = []
    judged: dict[str, dict[str, list[Answer]]] = {}
    for checkpoint, of_model in wanted:
        for task in of_model:
            answers = read_answers(answers_file(plan.folder, checkpoint.name, task.name))
            notes += notes_on(checkpoint.name, task.name, answers)
            if about[task.name]["kind"] == "judged":
                judged.setdefault(task.name, {})[checkpoint.name] = answers
            else:
                found[checkpoint.name, task.name] = measured(answers, about[task.name])
    if judged:
        from posttrain.evaluate.judged import judge_tasks

        outcome = judge_tasks(plan, [task for task in tasks if task.name in judged], judged)
        for name, changes in outcome.about.items():
            about[name] |= changes
        found |= outcome.measured
        notes += outcome.notes
    models = {checkpoint.name: checkpoint.as_json() for checkpoint, _ in wanted}
    ordered = {(model, name): found[model, name] for model in models for name in about if (model, name) in found}
    results = {
        "format": FORMAT,
        "settings": {
            "dtype": settings.dtype,
            "batch_size": settings.batch_size,
            "device": plan.device.type,
            "seed": plan.seed,
            "resamples": settings.resamples,
            "level": 0.95,
        },
        "models": models,
        "tasks": about,
        **figures(ordered, models, about, plan.seed, settings.resamples),
        "notes": notes,
    }
    plan.folder.mkdir(parents=True, exist_ok=True)
    write_results(plan.folder, results)
    (plan.folder / TABLE).write_text(table(results), encoding="utf-8")
    draw(results, plan.folder / PICTURE)
    return results


class _Bar:
    """How far it is."""

    def __init__(self, console: Console, progress: Any, task: Any) -> None:
        self._console, self._progress, self._task = console, progress, task

    def advance(self, samples: int) -> None:
        """Count samples as answered."""
        self._progress.advance(self._task, samples)

    def show(self, text: str) -> None:
        """Say what is being done."""
        self._progress.update(self._task, description=text)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(f"eval  {text}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _progress(console: Console, total: int) -> Iterator[_Bar]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Bar(console, progress, progress.add_task("", total=total))
