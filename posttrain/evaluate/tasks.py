"""The tasks that a recipe asks for: groups spelled out, names, and what is wrong with them before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from posttrain.recipe.schema_evaluate import (
    AlpacaEval,
    EvalTask,
    Ifeval,
    MtBench,
    MultipleChoice,
    Perplexity,
    TaskData,
    TaskGroup,
    Translation,
)
from posttrain.recipe.suggest import did_you_mean

if TYPE_CHECKING:
    from posttrain.evaluate.kinds.base import Scorer, Task

LANGUAGES = ("en", "fi")
CHOICES = ("arc-challenge", "hellaswag", "mmlu", "truthfulqa")
# Where a task reads unless the recipe says otherwise, if there is such a place; those of `CHOICES` are in their files.
PLACES: dict[tuple[str, str], dict[str, Any]] = {
    ("ifeval", "en"): {"path": "google/IFEval", "split": "train"},
    ("ifeval", "fi"): {"path": "LumiOpen/ifeval_mt", "config": "fi", "split": "train"},
    ("mt-bench", "en"): {"path": "HuggingFaceH4/mt_bench_prompts", "split": "train"},
}
JUDGED = (MtBench, AlpacaEval)
EXTRA = "pip install -c constraints.txt -e '.[eval]'"


def members(group: str) -> list[EvalTask]:
    """Return the tasks of a group."""
    if group == "base-en-fi":
        return [MultipleChoice(task=task, language=language) for task in CHOICES for language in _both()]
    if group == "translation":
        return [Translation(task="flores"), Translation(task="flores", source="fi", target="en")]
    kinds: list[tuple[str, Any]] = [("ifeval", Ifeval), ("mt-bench", MtBench), ("alpaca-eval-2", AlpacaEval)]
    return [kind(task=task, language=language) for task, kind in kinds for language in _both()]


def _both() -> Iterator[Any]:
    yield from LANGUAGES


def task_name(entry: EvalTask) -> str:
    """Return what results call a task: the task and its language, unless the recipe names it."""
    if entry.name is not None:
        return entry.name
    if isinstance(entry, Translation):
        return f"{entry.task}-{entry.source}-{entry.target}"
    return f"{entry.task}-{entry.language}" if isinstance(entry, TaskData) else entry.task


def expand(entries: Sequence[EvalTask]) -> list[EvalTask]:
    """Return the tasks of a recipe, groups replaced by their members and each task with its place."""
    found: list[EvalTask] = []
    for entry in entries:
        for task in _members_of(entry) if isinstance(entry, TaskGroup) else [entry]:
            place = PLACES.get((task.task, getattr(task, "language", "")))
            if place is not None and getattr(task, "path", None) is None:
                assert isinstance(task, TaskData)
                config = task.config or place.get("config")
                task = replace(task, path=place["path"], config=config, split=task.split or place["split"])
            found.append(task)
    return found


def _members_of(group: TaskGroup) -> Iterator[EvalTask]:
    for member in members(group.task):
        changes: dict[str, Any] = {"max_samples": group.max_samples, "models": group.models}
        if (path := group.paths.get(task_name(member))) is not None:
            changes["path"] = str(path)
        if group.max_tokens is not None and hasattr(member, "max_tokens"):
            changes["max_tokens"] = group.max_tokens
        yield replace(member, **changes)


def problems(entries: Sequence[EvalTask], *, judge: bool) -> list[str]:
    """Return what is wrong with the entries of `eval.tasks`, as far as their words show.

    Args:
        entries: The entries.
        judge: Whether the recipe has a model that judges.
    """
    found = []
    for index, entry in enumerate(entries):
        if isinstance(entry, TaskGroup):
            names = [task_name(member) for member in members(entry.task)]
            found += [
                f"eval.tasks.{index}.paths: {entry.task} has no task {name!r}; {did_you_mean(name, names)}"
                for name in entry.paths
                if name not in names
            ]
            if entry.name is not None:
                found.append(f"eval.tasks.{index}.name: {entry.task} is a group; its tasks have names of their own")
        if isinstance(entry, Translation) and entry.source == entry.target:
            found.append(f"eval.tasks.{index}.target: {entry.target} is the source too; give the other language")
    tasks = expand(entries)
    names = [task_name(task) for task in tasks]
    found += [
        f"eval.tasks: two tasks are called {name!r}; give one of them another name"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    for name, task in zip(names, tasks, strict=True):
        if isinstance(task, TaskData) and task.path is None and not isinstance(task, MultipleChoice):
            found.append(
                f"eval.tasks: {name} has no place on the hub that it could be read from; give its path (in a group: "
                f"paths: {{{name}: FILE}})"
            )
        if isinstance(task, JUDGED) and not judge:
            found.append(f"eval.tasks: {name} is scored by a judge; give a section judge (or teacher) with its model")
    return found


def missing_extras(entries: Sequence[EvalTask]) -> list[str]:
    """Return which packages the tasks need that are not installed."""
    tasks, found = expand(entries), []
    for kind, package in ((MultipleChoice, "lm_eval"), (Translation, "sacrebleu")):
        names = [task_name(task) for task in tasks if isinstance(task, kind)]
        if names and find_spec(package) is None:
            found.append(f"eval: {', '.join(names)}: the package {package} is not installed; run {EXTRA}")
    return found


def make(entry: EvalTask) -> Task:
    """Return the task of an entry."""
    from posttrain.evaluate.kinds.choice import ChoiceTask
    from posttrain.evaluate.kinds.ifeval import IfevalTask
    from posttrain.evaluate.kinds.judged import JudgedTask
    from posttrain.evaluate.kinds.perplexity import PerplexityTask
    from posttrain.evaluate.kinds.translation import TranslationTask

    name = task_name(entry)
    if isinstance(entry, Ifeval):
        return IfevalTask(name, entry)
    if isinstance(entry, MultipleChoice):
        return ChoiceTask(name, entry)
    if isinstance(entry, Translation):
        return TranslationTask(name, entry)
    if isinstance(entry, Perplexity):
        return PerplexityTask(name, entry)
    assert isinstance(entry, JUDGED), f"{entry} is no task"
    return JudgedTask(name, entry)


def scorer(kind: str) -> Scorer:
    """Return what scores the answers of a kind of task."""
    from posttrain.evaluate.kinds.choice import ChoiceScorer
    from posttrain.evaluate.kinds.ifeval import IfevalScorer
    from posttrain.evaluate.kinds.perplexity import PerplexityScorer
    from posttrain.evaluate.kinds.translation import TranslationScorer

    scorers: dict[str, Scorer] = {
        "choice": ChoiceScorer(),
        "ifeval": IfevalScorer(),
        "perplexity": PerplexityScorer(),
        "translation": TranslationScorer(),
    }
    return scorers[kind]
