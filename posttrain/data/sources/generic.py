"""Datasets in one of the common shapes, told by their columns.

SFT: `messages`; ShareGPT `conversations`; `prompt` and `completion`; `instruction` with `input` and `output`, or with
`context` and `response`. Preferences: `chosen` and `rejected`, with or without `prompt`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from posttrain.data.languages import language_code
from posttrain.data.rows import BadRow, Message, PreferenceRow, Refused, SftRow, preference_row, sft_row, turn
from posttrain.data.sources.base import Record, Source, SourceKind
from posttrain.errors import UserError

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}  # user, assistant and system stand for themselves
LOOKED_AT = 20  # records whose columns decide the shape: the first may lack an optional column
META_TEXT = 200  # characters: longer texts of other columns are content, not metadata


@dataclass(frozen=True, kw_only=True)
class Generic(Source):
    """A dataset whose columns tell its shape."""


@dataclass(frozen=True)
class Shape:
    """A known shape: the columns that it needs, those it may have, and how a record of it is read."""

    columns: tuple[str, ...]
    read: Callable[[Record], Any]
    optional: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "+".join((*self.columns, *(f"[{name}]" for name in self.optional)))


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


def _read_sharegpt(record: Record) -> list[Message]:
    messages = read_turns(record["conversations"], "from", "value")
    system = record.get("system")  # some releases keep the system turn in a column of its own
    if isinstance(system, str) and system.strip() and messages and messages[0]["role"] != "system":
        return [turn("system", system), *messages]
    return messages


def _read_completion(record: Record) -> list[Message]:
    return [*read_field(record["prompt"], "user"), *read_field(record["completion"], "assistant")]


def _read_instruction(record: Record, extra: str, answer: str) -> list[Message]:
    instruction, given = turn("user", record["instruction"]), record.get(extra)
    if given is not None and not isinstance(given, str):
        raise BadRow(f"content is not text: {extra} holds {type(given).__name__}")
    if given and given.strip():
        instruction = turn("user", f"{instruction['content']}\n\n{given}")
    return [instruction, turn("assistant", record[answer])]


# The first that fits is taken: where a dataset has a conversation and its parts, the conversation holds all turns.
SFT_SHAPES = (
    Shape(("messages",), lambda record: read_turns(record["messages"])),
    Shape(("conversations",), _read_sharegpt, ("system",)),
    Shape(("prompt", "completion"), _read_completion),
    Shape(("instruction", "output"), lambda record: _read_instruction(record, "input", "output"), ("input",)),
    Shape(("instruction", "response"), lambda record: _read_instruction(record, "context", "response"), ("context",)),
)


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


def _read_pair(record: Record) -> tuple[list[Message], str, str]:
    return split_pair(record.get("prompt"), record["chosen"], record["rejected"])


PREFERENCE_SHAPES = (Shape(("chosen", "rejected"), _read_pair, ("prompt",)),)


def find_shape(records: list[Record], shapes: tuple[Shape, ...], options: Source) -> Shape:
    """Return the first shape whose columns one of the records has.

    Raises:
        UserError: None of the records has any shape's columns.
    """
    for shape in shapes:
        if any(all(column in record for column in shape.columns) for record in records):
            return shape
    found = ", ".join(dict.fromkeys(column for record in records for column in record)) or "(none)"
    known = "; ".join(str(shape) for shape in shapes)
    raise UserError(
        f"{options.path}: has none of the known shapes; its columns are {found}; known are {known}; "
        "rename the columns, or name the source it comes from"
    )


def _shaped(
    records: Iterable[Record], shapes: tuple[Shape, ...], options: Source
) -> Iterator[tuple[int, Record, Shape, str]]:
    """Yield number, record, shape and, where the record lacks a column of that shape, why it is refused."""
    stream = iter(records)
    if not (first := list(islice(stream, LOOKED_AT))):
        return
    shape = find_shape(first, shapes, options)
    for unit, record in enumerate(chain(first, stream)):
        missing = [column for column in shape.columns if record.get(column) is None]
        yield unit, record, shape, f"missing column: {', '.join(missing)}" if missing else ""


def _common(record: Record, shape: Shape, options: Source, unit: int) -> dict[str, Any]:
    """Return what both contracts share; `meta` keeps short values of other columns, such as a subset's name."""
    license = options.license or record.get("license")
    used = {*shape.columns, *shape.optional, "language", "lang", "license"}
    short = {
        name: value
        for name, value in record.items()
        if name not in used and isinstance(value, (bool, int, float, str)) and len(str(value)) <= META_TEXT
    }
    return {
        "source": options.label,
        "language": language_code(record.get("language", record.get("lang"))),
        "license": license if isinstance(license, str) else None,
        "meta": {**short, "row": unit},
        "units": (unit,),
    }


def to_sft(records: Iterable[Record], options: Generic) -> Iterator[SftRow | Refused]:
    """Convert records to SFT rows, one for one."""
    for unit, record, shape, missing in _shaped(records, SFT_SHAPES, options):
        try:
            if missing:
                raise BadRow(missing)
            yield sft_row(shape.read(record), **_common(record, shape, options, unit))
        except BadRow as bad:
            yield Refused(record, str(bad), unit)


def _number(record: Record, name: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BadRow(f"{name} is not a number: {value!r}")
    return float(value)


def _margin(record: Record) -> float | None:
    margin = _number(record, "margin")
    if margin is None:
        better, worse = _number(record, "score_chosen"), _number(record, "score_rejected")
        margin = better - worse if better is not None and worse is not None else None
    if margin == 0:
        raise BadRow("tie")
    if margin is not None and margin < 0:
        raise BadRow("chosen scores below rejected")
    return margin


def to_preference(records: Iterable[Record], options: Generic) -> Iterator[PreferenceRow | Refused]:
    """Convert records to preference rows, one for one.

    `margin` is a `margin` column, or `score_chosen - score_rejected`, or None; ties are refused.
    """
    for unit, record, shape, missing in _shaped(records, PREFERENCE_SHAPES, options):
        try:
            if missing:
                raise BadRow(missing)
            prompt, chosen, rejected = shape.read(record)
            common = _common(record, shape, options, unit)
            yield preference_row(prompt, chosen, rejected, margin=_margin(record), **common)
        except BadRow as bad:
            yield Refused(record, str(bad), unit)


KIND = SourceKind(name="generic", options=Generic, to_sft=to_sft, to_preference=to_preference)
