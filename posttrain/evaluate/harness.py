"""What is asked of lm-eval: prompts from a task file and rows, with their examples and continuations."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.errors import UserError

SEED = 1234  # of the choice of examples: lm-eval's own default, as published figures have it
_ONE_SUBJECT = ""
# Keys of a task file that say where the data is, which the recipe may say otherwise.
_PLACES = ("dataset_path", "dataset_name", "dataset_kwargs", "test_split", "fewshot_split", "num_fewshot", "metadata")


@dataclass(frozen=True)
class Request:
    """A question: its prompt, the continuations with the space before them, and what scoring needs."""

    context: str
    choices: list[str]
    item: dict[str, Any]


def numbers_by_subject(rows: Sequence[dict[str, Any]], file: dict[str, Any]) -> dict[str, list[int]]:
    """Return the numbers of the rows of each subject, in order; all under one where the file knows no subjects."""
    template = file["metadata"].get("subject")
    if template is None:
        return {_ONE_SUBJECT: list(range(len(rows)))}
    grouped: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        grouped.setdefault(_rendered(template, row), []).append(number)
    return grouped


def _rendered(template: str, row: dict[str, Any]) -> str:
    from lm_eval.utils import apply_template

    return str(apply_template(template, row))


def lm_eval_task(name: str, file: dict[str, Any], rows: list[Any], examples: list[Any], shots: int, same: bool) -> Any:
    """Return lm-eval's task of a file, reading these rows.

    Where the examples are of the questions themselves, both have one split: then lm-eval leaves out the question asked.
    """
    from datasets import Dataset, DatasetDict
    from lm_eval.api.task import ConfigurableTask

    splits = {"questions": Dataset.from_list(rows)}
    if shots and not same:
        splits["examples"] = Dataset.from_list(examples)
    config = {key: value for key, value in file.items() if key not in _PLACES}
    config |= {
        "custom_dataset": lambda **_: DatasetDict(splits),
        "test_split": "questions",
        "fewshot_split": ("questions" if same else "examples") if shots else None,
        "num_fewshot": shots,
        "metadata": {"version": file["metadata"]["version"]},
    }
    with _reading(name), quiet():
        task = ConfigurableTask(config=config)
    task.set_fewshot_seed(SEED)
    return task


def requests_of(name: str, task: Any, count: int, file: dict[str, Any], shots: int) -> list[Request]:
    """Build the prompts of the first `count` questions."""
    import ast

    found = []
    labels = file["metadata"].get("labels")
    for number in range(count):
        row = task.eval_docs[number]
        with _reading(name), quiet():
            context = task.fewshot_context(row, shots)
            choices = task.doc_to_choice(row)
            item: dict[str, Any] = {"gold": int(task.doc_to_target(row)), "lengths": [len(each) for each in choices]}
            if labels is not None:
                item = {"labels": [int(label) for label in ast.literal_eval(_rendered(labels, row))]}
        found.append(Request(context, [f"{task.config.target_delimiter}{choice}" for choice in choices], item))
    return found


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Say of rows that a task file cannot read whose they are."""
    from jinja2 import TemplateError

    try:
        yield
    except (TemplateError, KeyError, IndexError, ValueError, TypeError, SyntaxError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"eval: {name}: its rows are not of the form that its task file reads: {said}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence lm-eval's advice on how to run it, which breaks into the stage's own output."""
    logger = logging.getLogger("lm_eval")
    former = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(former)
