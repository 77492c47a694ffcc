"""Rows made for one test each, and what every step has to keep to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.data.rows import PreferenceRow, Row, SftRow, preference_row, sft_row, turn
from posttrain.data.steps.base import Rejected, Result, Step


def sft(
    answer: str, prompt: str = "Kerro lisää.", *, language: str = "und", system: str | None = None, **meta: Any
) -> SftRow:
    """Make a row of one question and one answer."""
    messages = [turn("user", prompt), turn("assistant", answer)]
    if system is not None:
        messages.insert(0, turn("system", system))
    return sft_row(messages, source="made", language=language, license=None, meta=meta, units=(0,))


def pair(chosen: str, rejected: str, prompt: str = "Kerro lisää.", *, language: str = "und") -> PreferenceRow:
    """Make a pair of answers to one question."""
    return preference_row(
        [turn("user", prompt)],
        chosen,
        rejected,
        margin=None,
        source="made",
        language=language,
        license=None,
        meta={},
        units=(0,),
    )


def reasons(step: Step, rows: Sequence[Row]) -> list[str | None]:
    """Return why each row is refused, None where it is not, having checked that batches make no difference."""
    together = step(rows)
    assert len(together) == len(rows)
    one_by_one: list[Result] = [result for row in rows for result in step([row])]
    assert one_by_one == together
    return [result.reason if isinstance(result, Rejected) else None for result in together]


def refuses(step: Step, answers: Sequence[str]) -> list[str]:
    """Return which answers a step refuses."""
    found = reasons(step, [sft(answer) for answer in answers])
    return [answer for answer, reason in zip(answers, found, strict=True) if reason is not None]
