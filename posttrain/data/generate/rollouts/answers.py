"""Which answers are whole, and which of a teacher's can be a turn of a row."""

from __future__ import annotations

from posttrain.data.generate.requests import LENGTH, Answer
from posttrain.data.rows import BadRow, turn

_CUT_OFF = ("content_filter", "abort")  # what servers call an answer that they broke off themselves


def broken_off(answer: Answer, keep_truncated: bool, *, what: str = "answer") -> str | None:
    """Return why an answer is not all that the model had to say, or None.

    Args:
        answer: What the model wrote.
        keep_truncated: Whether one that reached `max_tokens` passes.
        what: What the reason calls it.
    """
    if answer.finish_reason == LENGTH and not keep_truncated:
        return f"{what} truncated: finish_reason {LENGTH}"
    if answer.finish_reason in _CUT_OFF:
        return f"{what} cut off: finish_reason {answer.finish_reason}"
    return None


def unfit(answer: Answer, keep_truncated: bool) -> str | None:
    """Return why an answer cannot be a turn of a row, or None.

    Args:
        answer: What the teacher wrote.
        keep_truncated: Whether one that reached `max_tokens` can be.
    """
    if reason := broken_off(answer, keep_truncated):
        return reason
    if not answer.text.strip():
        return "empty answer"
    try:
        turn("assistant", answer.text)
    except BadRow as bad:
        return str(bad)
    return None
