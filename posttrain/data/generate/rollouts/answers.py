"""Which answers of a teacher can be a turn of a row."""

from __future__ import annotations

from posttrain.data.generate.requests import LENGTH, Answer
from posttrain.data.rows import BadRow, turn

_CUT_OFF = ("content_filter", "abort")  # what servers call an answer that they broke off themselves


def unfit(answer: Answer, keep_truncated: bool) -> str | None:
    """Return why an answer cannot be a turn of a row, or None.

    Args:
        answer: What the teacher wrote.
        keep_truncated: Whether one that reached `max_tokens` can be.
    """
    if answer.finish_reason == LENGTH and not keep_truncated:
        return f"answer truncated: finish_reason {LENGTH}"
    if answer.finish_reason in _CUT_OFF:
        return f"answer cut off: finish_reason {answer.finish_reason}"
    if not answer.text.strip():
        return "empty answer"
    try:
        turn("assistant", answer.text)
    except BadRow as bad:
        return str(bad)
    return None
