"""The section `eval` made small: the same tasks on a few samples of the package, a few tokens an answer."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from posttrain.recipe.schema_evaluate import (
    AlpacaEval,
    Baseline,
    EvalTask,
    Evaluation,
    Ifeval,
    MtBench,
    MultipleChoice,
    Perplexity,
    Translation,
)

SAMPLES = 3  # of a task
TOKENS = 16  # of an answer
SMALL: dict[str, Any] = {"revision": None, "config": None, "split": None, "max_samples": SAMPLES}


def few_samples(section: Evaluation, model: str | None, notes: list[str]) -> Evaluation:
    """Return the section with its tasks small; what cannot be measured here is left out, and noted.

    Args:
        section: The section.
        model: The folder of the tiny model, which stands in for baselines; None if there is none.
        notes: What has been changed beyond sizes and sources.
    """
    from posttrain.evaluate.tasks import expand, missing_extras, task_name

    tasks = expand(section.tasks)
    able = [task for task in tasks if not missing_extras([task])]
    if missing := [task_name(task) for task in tasks if task not in able]:
        notes.append(f"eval: {', '.join(missing)}: left out, because the extra eval is not installed")
    if not able:
        able = [Ifeval(task="ifeval")]
    baselines = [Baseline(name=each.name, path=model) for each in section.baselines] if model is not None else []
    if section.baselines and not baselines:
        notes.append("eval.baselines: left out; the recipe makes its own model")
    gone = {each.name for each in section.baselines} - {each.name for each in baselines}
    small = [_small(task, notes) for task in able]
    return replace(
        section,
        tasks=[replace(task, models=[name for name in task.models if name not in gone]) for task in small],
        baselines=baselines,
        dtype="float32",
        batch_size=min(section.batch_size, 4),
        resamples=100,
    )


def _small(task: EvalTask, notes: list[str]) -> EvalTask:
    if isinstance(task, Ifeval):
        return replace(
            task,
            **SMALL,
            path=f"builtin:samples/ifeval-{task.language}.jsonl",
            skip_instructions=_unverifiable(task, notes),
            max_tokens=TOKENS,
        )
    if isinstance(task, MultipleChoice):
        path = f"builtin:eval/samples/{task.task}-{task.language}.jsonl"
        shots = 1 if task.num_fewshot is None else min(task.num_fewshot, 1)
        return replace(task, **SMALL, path=path, fewshot_path=path, num_fewshot=shots)
    if isinstance(task, Translation):
        return replace(
            task,
            path="builtin:samples/europarl.en-fi",
            fewshot_path=None,
            revision=None,
            num_fewshot=min(task.num_fewshot, 1),
            max_samples=SAMPLES,
            max_tokens=TOKENS,
        )
    if isinstance(task, Perplexity):
        return replace(task, **SMALL, path="builtin:samples/instructions.jsonl", column="output", max_length=64)
    assert isinstance(task, MtBench | AlpacaEval)
    path = f"builtin:eval/samples/{task.task}-{task.language}.jsonl"
    return replace(task, **SMALL, path=path, max_tokens=TOKENS)


def _unverifiable(task: Ifeval, notes: list[str]) -> list[str]:
    """Return the instructions that are left out: those of the recipe, and without heliport those that need it."""
    if find_spec("heliport") is not None:
        return task.skip_instructions
    from posttrain.evaluate.ifeval import VERIFIERS

    needing = sorted(name for name, verifier in VERIFIERS.items() if verifier.needs_language)
    note = f"eval: prompts with {', '.join(needing)} are left out, because the extra language is not installed"
    if note not in notes:
        notes.append(note)
    return sorted({*task.skip_instructions, *needing})
