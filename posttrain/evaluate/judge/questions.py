"""What models are asked before a judge sees it: MT-Bench's questions of several turns, AlpacaEval's instructions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.data.rows import content_id
from posttrain.errors import UserError

_MOST = 10  # problems shown


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question.

    Attributes:
        id: Unique in its set.
        category: Its category, or of AlpacaEval the data set it is from; None where the file does not say.
        turns: What the user writes, one message after the other; each is answered before the next is put.
        references: Of MT-Bench the solution to each turn, None where there is none; of AlpacaEval the answer to
            compare with.
        generator: Which model wrote that answer, where the file says so.
        difficulty: The instruction's, where the file says so; see `length_control`.
    """

    id: str
    category: str | None
    turns: tuple[str, ...]
    references: tuple[str | None, ...]
    generator: str | None = None
    difficulty: float | None = None


def mt_bench_questions(rows: Sequence[Mapping[str, Any]], task: str) -> list[Question]:
    """Read questions in FastChat's form: `question_id`, `turns`, optionally `category` and `reference`.

    Args:
        rows: The rows of the file.
        task: Its name, for messages.

    Raises:
        UserError: Rows that are no such questions, or two with the same id; all of them together.
    """
    problems: list[str] = []
    found = []
    for number, row in enumerate(rows, start=1):
        where = f"eval: {task}: row {number}"
        turns, references = row.get("turns"), row.get("reference")
        if row.get("question_id") is None:
            problems.append(f"{where} has no question_id")
        if not isinstance(turns, list) or not _texts(turns):
            problems.append(f"{where}: turns has to be a list of one or more texts")
            continue
        if isinstance(references, str):
            references = [references]
        if references is not None and not (isinstance(references, list) and _fits(references, len(turns))):
            problems.append(f"{where}: reference has to be a list of at most {len(turns)} texts, one for each turn")
            continue
        missing = len(turns) - len(references or ())
        found.append(
            Question(
                id=str(row.get("question_id")),
                category=_text_or_none(row.get("category")),
                turns=tuple(turns),
                references=(*(text or None for text in references or ()), *[None] * missing),
            )
        )
    doubled = sorted(name for name, count in Counter(question.id for question in found).items() if count > 1)
    problems += [f"eval: {task}: several rows have the question_id {name}" for name in doubled if not problems]
    _raise(problems)
    return found


def alpaca_eval_questions(rows: Sequence[Mapping[str, Any]], task: str) -> list[Question]:
    """Read a reference model's outputs: `instruction`, `output`, optionally `generator`, `dataset`, a difficulty.

    An id is the hash of data set and instruction; the second of two equal ones ends with `-2`.

    Args:
        rows: The rows of the file; a column `instruction_difficulty` holds a number in each of them, or is not there.
        task: Its name, for messages.

    Raises:
        UserError: Rows that are no such outputs; all of them together.
    """
    problems: list[str] = []
    found = []
    seen: Counter[str] = Counter()
    rated = any(row.get("instruction_difficulty") is not None for row in rows)
    for number, row in enumerate(rows, start=1):
        where = f"eval: {task}: row {number}"
        for column in ("instruction", "output"):
            if not isinstance(row.get(column), str) or (column == "instruction" and not row[column].strip()):
                problems.append(f"{where}: {column} has to be a text")
        difficulty = row.get("instruction_difficulty")
        if rated and not _is_number(difficulty):
            problems.append(f"{where} has no number under instruction_difficulty, and other rows have")
        if problems:
            continue
        category = _text_or_none(row.get("dataset"))
        key = content_id([category, row["instruction"]])[:16]
        seen[key] += 1
        found.append(
            Question(
                id=key if seen[key] == 1 else f"{key}-{seen[key]}",
                category=category,
                turns=(row["instruction"],),
                references=(row["output"],),
                generator=_text_or_none(row.get("generator")),
                difficulty=float(difficulty) if rated and difficulty is not None else None,
            )
        )
    _raise(problems)
    return found


def generators(questions: Sequence[Question]) -> list[str]:
    """Return the names of the models that the reference answers are by, sorted, as far as the file says."""
    return sorted({question.generator for question in questions if question.generator is not None})


def in_order(ids: Sequence[str]) -> list[str]:
    """Return ids in the order in which questions are asked and resampled: numbers by value, then the others."""
    return sorted(ids, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def _raise(problems: Sequence[str]) -> None:
    if len(problems) > _MOST:
        problems = [*problems[:_MOST], f"and {len(problems) - _MOST} more"]
    if problems:
        raise UserError(problems)


def _texts(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(text, str) and text.strip() for text in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _fits(references: Sequence[Any], most: int) -> bool:
    return len(references) <= most and all(text is None or isinstance(text, str) for text in references)


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)
