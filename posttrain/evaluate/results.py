"""`results.json`: every figure with its interval, and the paired comparisons; made from the answers alone."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from posttrain.errors import UserError
from posttrain.evaluate.answers import Answer, answers_file, read_answers
from posttrain.evaluate.decode import LENGTH, REFUSED
from posttrain.evaluate.metrics import Measured
from posttrain.evaluate.tasks import scorer

FILE = "results.json"
FORMAT = 1
_DIGITS = 10  # significant ones of what is written: more than any machine agrees on


def number(value: float) -> float | None:
    """Return a figure as it is written: ten significant digits; None for what is no number."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def pairs(models: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return which models are compared: each with what it was made from, and the last one with each baseline.

    Args:
        models: What `results.json` says of each, in order.
    """
    found = [(name, about["origin"]) for name, about in models.items() if about.get("origin") in models]
    own = [name for name, about in models.items() if about["kind"] in ("base", "sft", "instruct")]
    baselines = [name for name, about in models.items() if about["kind"] == "baseline"]
    return found + [(own[-1], name) for name in baselines if own]


def scored(answer: Answer, task: Mapping[str, Any]) -> Answer:
    """Return an answer with its scores computed anew."""
    scores = scorer(task["kind"]).score(answer, task["options"])
    return replace(answer, scores=json.loads(json.dumps(scores)))


def measured(answers: Sequence[Answer], task: Mapping[str, Any]) -> list[Measured]:
    """Return the metrics of a task over a model's answers."""
    return scorer(task["kind"]).measure(answers, task["options"])


def figures(
    found: Mapping[tuple[str, str], Sequence[Measured]],
    models: Mapping[str, Mapping[str, Any]],
    tasks: Mapping[str, Mapping[str, Any]],
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """Return `results` and `comparisons` of `results.json`.

    Args:
        found: The metrics by model and task; a pair may be missing.
        models: What the models are, in order.
        tasks: What the tasks are, in order.
        seed: Of the bootstrap.
        resamples: Its draws.
    """
    results: dict[str, Any] = {name: {} for name in models}
    for (model, task), metrics in found.items():
        results[model][task] = {
            each.metric.name: {"value": number(each.value), "interval": _ends(each.interval(seed, resamples))}
            for each in metrics
        }
    comparisons = []
    for task in tasks:
        for one, other in pairs(models):
            if (one, task) not in found or (other, task) not in found:
                continue
            others = {each.metric.name: each for each in found[other, task]}
            for mine in found[one, task]:
                its = others.get(mine.metric.name)
                if its is None or mine.statistics.shape != its.statistics.shape:  # a judge gave no verdict on one
                    continue
                difference = mine.less(its, seed, resamples)
                comparisons.append(
                    {
                        "task": task,
                        "metric": mine.metric.name,
                        "a": one,
                        "b": other,
                        "difference": number(difference.value),
                        "interval": _ends(difference.interval),
                        "p_value": None if difference.p_value is None else number(difference.p_value),
                    }
                )
    return {"results": results, "comparisons": comparisons}


def differences(before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float = 1e-9) -> list[str]:
    """Return where figures of two results differ by more than rounding."""
    found = []
    for model, tasks in before["results"].items():
        for task, metrics in tasks.items():
            for metric, figure in metrics.items():
                again = after["results"].get(model, {}).get(task, {}).get(metric)
                one, other = figure["value"], None if again is None else again["value"]
                same = one == other or (
                    one is not None and other is not None and math.isclose(one, other, rel_tol=tolerance)
                )
                if not same:
                    found.append(f"{model}, {task}: {metric} is {one} in its results, and {other} from its answers")
    return found


def _ends(interval: tuple[float, float] | None) -> list[float | None] | None:
    return None if interval is None else [number(end) for end in interval]


def notes_on(model: str, task: str, answers: Sequence[Answer]) -> list[str]:
    """Return what has to be known of a model's answers to a task: those that are missing, cut off, or cut short."""
    noted: dict[str, int] = {}
    for answer in answers:
        if answer.note is not None:
            reason = answer.note.partition(":")[0]  # what follows differs from sample to sample
            what = f"not asked: {reason}" if REFUSED in _reasons(answer) else f"answered all the same: {reason}"
            noted[what] = noted.get(what, 0) + 1
    if cut := sum(LENGTH in _reasons(answer) for answer in answers):
        noted["cut off by the limit on tokens"] = cut
    return [f"{model}, {task}: {count} of {len(answers)} {reason}" for reason, count in noted.items()]


def _reasons(answer: Answer) -> list[Any]:
    reasons = answer.finish_reason
    return list(reasons) if isinstance(reasons, list) else [reasons]


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write `results.json` in one step."""
    unfinished = folder / f".{FILE}.unfinished"
    unfinished.write_text(dumped(results), encoding="utf-8")
    os.replace(unfinished, folder / FILE)


def dumped(results: Mapping[str, Any]) -> str:
    """Return the text of `results.json`: keys in the order of the contract, models and tasks in that of the recipe."""
    return json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_results(folder: Path) -> dict[str, Any]:
    """Read the results in a folder of the eval stage.

    Raises:
        UserError: There are none, or of another format.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: there are no results: {error.strerror or error}; run posttrain eval first") from error
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); measure again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: is not of format {FORMAT}, which this version of posttrain reads")
    return content


def rescore(folder: Path) -> dict[str, Any]:
    """Compute all scores again from the answers that were kept, without any model.

    Args:
        folder: A folder of the eval stage.

    Returns:
        What `results.json` would be; it is not written.

    Raises:
        UserError: Results or answers are missing or damaged.
    """
    from posttrain.evaluate.judged import measured_by_judge

    before = read_results(folder)
    found: dict[tuple[str, str], Sequence[Measured]] = {}
    for task, about in before["tasks"].items():
        models = [model for model, results in before["results"].items() if task in results]
        if about["kind"] == "judged":
            found |= measured_by_judge(folder, task, about, models)
            continue
        for model in models:
            answers = [scored(answer, about) for answer in read_answers(answers_file(folder, model, task))]
            found[model, task] = measured(answers, about)
    settings = before["settings"]
    ordered = {
        (model, task): found[model, task]
        for model in before["models"]
        for task in before["tasks"]
        if (model, task) in found
    }
    return {**before, **figures(ordered, before["models"], before["tasks"], settings["seed"], settings["resamples"])}
