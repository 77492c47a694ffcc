"""The tasks that a judge scores, once all models have answered: verdicts kept in `verdicts/TASK.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.evaluate.answers import Answer
from posttrain.evaluate.judge.questions import generators
from posttrain.evaluate.judge.scoring import Judged
from posttrain.evaluate.judge.task import Benchmark, judge_task, rescore_judged
from posttrain.evaluate.kinds.judged import JudgedTask, for_judge
from posttrain.evaluate.metrics import Measured
from posttrain.recipe.schema_evaluate import MtBench

if TYPE_CHECKING:
    from posttrain.evaluate.kinds.base import Task
    from posttrain.evaluate.run import Plan

FOLDER = "verdicts"


@dataclass(frozen=True)
class Outcome:
    """What the judge's verdicts come to: metrics by model and task, what to add to each task's description, notes."""

    measured: dict[tuple[str, str], Sequence[Measured]] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def judge_tasks(plan: Plan, tasks: Sequence[Task], answers: Mapping[str, Mapping[str, Sequence[Answer]]]) -> Outcome:
    """Have the judge score the answers of all models to some tasks.

    Args:
        plan: The evaluation.
        tasks: The tasks.
        answers: Of each task and model.

    Raises:
        Interrupted: A signal stopped it; what the judge has said is kept.
        UserError: The judge cannot be asked.
    """
    outcome = Outcome()
    for task in tasks:
        assert isinstance(task, JudgedTask)
        assert plan.judge is not None, "a check of the stage asks for it"
        against = task.entry.against if isinstance(task.entry, MtBench) else None
        benchmark: Benchmark = "mt-bench" if isinstance(task.entry, MtBench) else "alpaca-eval-2"
        judged, _ = judge_task(
            task.name,
            benchmark,
            task.questions,
            {model: for_judge(given) for model, given in answers[task.name].items()},
            plan.judge,
            plan.folder / FOLDER,
            plan.seed,
            language=task.entry.language,
            store=plan.verdicts,
            against=against,
            section=plan.judge_section,
        )
        metrics = {each.metric.name: each.metric for found in judged.measured.values() for each in found}
        outcome.about[task.name] = {
            "metrics": {name: metric.as_json() for name, metric in metrics.items()},
            "options": {
                **task.about.options,
                "benchmark": benchmark,
                "against": against,
                "judge": {"model": _portable(plan.judge.model), "revision": plan.judge.revision},
                "reference": generators(task.questions),
            },
            "judged": judged.as_json(plan.seed, plan.settings.resamples),
        }
        outcome.measured.update({(model, task.name): found for model, found in judged.measured.items()})
        outcome.notes.extend(_notes(task.name, judged))
    return outcome


def _portable(model: str) -> str:
    """Return a model's name without the folder that it is in on this machine."""
    return Path(model).name if Path(model).expanduser().is_absolute() else model


def _notes(task: str, judged: Judged) -> list[str]:
    return [
        f"{model}, {task}: {count} of {judged.verdicts.get(model, count)} verdicts could not be had: {reason}"
        for model, reasons in judged.unjudged.items()
        for reason, count in reasons.items()
    ]


def measured_by_judge(
    folder: Path, task: str, about: Mapping[str, Any], models: Sequence[str]
) -> dict[tuple[str, str], Sequence[Measured]]:
    """Return the metrics of a task from the verdicts that were kept, without the judge."""
    options = about["options"]
    judged = rescore_judged(task, options["benchmark"], folder / FOLDER, options["against"])
    return {(model, task): judged.measured[model] for model in models}
