"""Which steps the rows of an entry go through, in which order, and how they are put through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from posttrain.data.rows import Row
from posttrain.data.sources.base import Source
from posttrain.data.steps.base import Rejected, Step
from posttrain.data.steps.language import Language
from posttrain.data.steps.length import Length
from posttrain.data.steps.markup import Markup
from posttrain.data.steps.pii import MaskPii
from posttrain.data.steps.refusal import Refusal
from posttrain.data.steps.repetition import Repetition
from posttrain.data.steps.truncation import Truncation
from posttrain.data.steps.vendor import Vendor
from posttrain.errors import UserError
from posttrain.recipe.schema_data import Data


def row_steps(data: Data, entry: Source, tokenizer_file: Path | None, extra: Sequence[Step] = ()) -> list[Step]:
    """Return the steps that the rows of an entry go through.

    Args:
        data: Says which steps are on.
        entry: Its `skip` leaves steps out, those of `extra` too.
        tokenizer_file: The `tokenizer.json` of the run, where there is one.
        extra: Steps that come last.

    Raises:
        UserError: A step lacks what it needs: a tokenizer, a package. All such are told together.
    """
    filters = data.filters
    build: list[tuple[str, Any, Callable[[Any], Step]]] = [
        (Markup.name, filters.markup, lambda options: Markup(options, tokenizer_file)),
        (Truncation.name, filters.truncation, Truncation),
        (Length.name, filters.length, lambda options: Length(options, tokenizer_file)),
        (Language.name, filters.language, lambda options: Language(options, entry.languages)),
        (Repetition.name, filters.repetition, Repetition),
        (Refusal.name, filters.refusal, Refusal),
        (Vendor.name, filters.vendor, Vendor),
        (MaskPii.name, data.pii, MaskPii),
    ]
    steps: list[Step] = []
    problems: list[str] = []
    for name, options, make in build:
        if options is None or name in entry.skip:
            continue
        try:
            steps.append(make(options))
        except UserError as error:
            problems.extend(error.problems)
    if problems:
        raise UserError(problems)
    return [*steps, *(step for step in extra if step.name not in entry.skip)]


def apply(steps: Sequence[Step], rows: Sequence[Row]) -> tuple[list[Row], list[tuple[Row, str, str]]]:
    """Put rows through steps, each of which sees only those that are left.

    Returns:
        The rows that are left, and those that are not, as the step saw them, each with the step's name and its reason;
        both in the order of the rows, so that batches put one after another give the same as all rows at once.

    Raises:
        RuntimeError: A step did not give back one result for each row.
    """
    left: list[tuple[int, Row]] = list(enumerate(rows))
    rejected: list[tuple[int, Row, str, str]] = []
    for step in steps:
        results = step([row for _, row in left])
        if len(results) != len(left):
            raise RuntimeError(f"step {step.name} was given {len(left)} rows and gave back {len(results)}")
        passed: list[tuple[int, Row]] = []
        for (place, row), result in zip(left, results, strict=True):
            if isinstance(result, Rejected):
                rejected.append((place, row, step.name, result.reason))
            else:
                passed.append((place, result))
        left = passed
    if len(left) + len(rejected) != len(rows):
        raise RuntimeError(f"{len(rows)} rows became {len(left)} and {len(rejected)} rejected")
    rejected.sort(key=lambda item: item[0])
    return [row for _, row in left], [(row, step, reason) for _, row, step, reason in rejected]
