"""How converters read the fields of a record: turns, pairs, numbers, the licence; `BadRow` where one is unfit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from posttrain.data.rows import BadRow, Conversation, Message, PreferenceRow, Refused, SftRow, turn
from posttrain.data.sources.base import Record, Source

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}  # user, assistant and system stand for themselves

RowT = TypeVar("RowT", Conversation, SftRow, PreferenceRow)


def convert_each(
    records: Iterable[Record], start: int, convert: Callable[[Record, int], RowT]
) -> Iterator[RowT | Refused]:
    """Convert records one for one with `convert(record, unit)`, units numbered from `start`; a `BadRow` is refused."""
    for unit, record in enumerate(records, start):
        try:
            yield convert(record, unit)
        except BadRow as bad:
            yield Refused(record, str(bad), unit)


def require(record: Record, columns: Iterable[str]) -> None:
    """Refuse a record that lacks one of the columns or holds null there."""
    if missing := [column for column in columns if record.get(column) is None]:
        raise BadRow(f"missing column: {', '.join(missing)}")


def read_turns(value: Any, role_key: str = "role", content_key: str = "content") -> list[Message]:
    """Read a list of messages. An empty system turn says nothing and is left out; `BadRow` where a turn is unfit."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(message, dict) for message in value):
        raise BadRow(f"messages are not a list of objects: {type(value).__name__}")
    messages = []
    for message in value:
        role, content = message.get(role_key), message.get(content_key)
        if role_key == "from" and isinstance(role, str):
            role = SHAREGPT_ROLES.get(role, role)
        if not (role == "system" and isinstance(content, str) and not content.strip()):
            messages.append(turn(role, content))
    return messages


def read_field(value: Any, role: str) -> list[Message]:
    """Read a field that is either the text of one `role` turn or a list of messages."""
    return [turn(role, value)] if isinstance(value, str) else read_turns(value)


def read_sharegpt(record: Record) -> list[Message]:
    """Read `conversations`, with a system turn that some releases keep in a column of its own."""
    messages = read_turns(record["conversations"], "from", "value")
    system = record.get("system")
    if isinstance(system, str) and system.strip() and messages and messages[0]["role"] != "system":
        return [turn("system", system), *messages]
    return messages


def split_pair(prompt: Any, chosen: Any, rejected: Any) -> tuple[list[Message], str, str]:
    """Split a pair into the prompt's messages and the two answers.

    Each is a text or messages. Where `chosen` and `rejected` repeat the prompt it is cut off; the prompt may then be
    their last turns only (a system turn before it), or None.

    Raises:
        BadRow: The two do not answer the same prompt, or an answer is more than one assistant turn.
    """
    given = [] if prompt is None else read_field(prompt, "user")
    contexts, answers = [], []
    for name, value in (("chosen", chosen), ("rejected", rejected)):
        messages = read_field(value, "assistant")
        if not messages or messages[-1]["role"] != "assistant":
            raise BadRow(f"no assistant turn: {name} does not end with one")
        contexts.append(messages[:-1])
        answers.append(messages[-1]["content"])
    if contexts[0] != contexts[1]:
        raise BadRow("chosen and rejected differ before the last turn")
    context = contexts[0]
    if not context:
        context = given
    elif given and context[-len(given) :] != given:
        raise BadRow("prompt is not what chosen and rejected answer")
    if not context:
        raise BadRow("no prompt")
    return context, answers[0], answers[1]


def number(record: Record, name: str) -> float | None:
    """Return a finite number, or None where the column is absent or null."""
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BadRow(f"{name} is not a number: {value!r}")
    return float(value)


def scored_margin(record: Record) -> float | None:
    """Return `score_chosen - score_rejected`, or None where one of them is absent.

    Raises:
        BadRow: They are equal, or the wrong way round.
    """
    better, worse = number(record, "score_chosen"), number(record, "score_rejected")
    return positive_margin(None if better is None or worse is None else better - worse)


def positive_margin(margin: float | None) -> float | None:
    """Return a margin above 0, or None for None; `BadRow` for a tie, and where the worse answer is chosen."""
    if margin == 0:
        raise BadRow("tie")
    if margin is not None and margin < 0:
        raise BadRow("chosen scores below rejected")
    return margin


def row_license(options: Source, record: Record, default: str | None = None) -> str | None:
    """Return the licence that the entry states, or else the record, or else the source's own."""
    own = record.get("license")
    return options.license or (own if isinstance(own, str) and own.strip() else default)


def present(**values: Any) -> dict[str, Any]:
    """Return the metadata that there is: those values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
