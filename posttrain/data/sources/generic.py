"""Datasets in one of the common shapes, named in the recipe or told by their columns.

SFT: `messages`; ShareGPT `conversations`; `prompt` and `completion`; `instruction` with `input` and `output`, or with
`context` and `response`. Preferences: `chosen` and `rejected`, with or without `prompt`. Prompts that `generate` has
answered or translated: any of those for SFT, where an answer may be missing, or `prompt`, `instruction` with `input`
or `context`, `question`, `text`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from posttrain.data.languages import language_code
from posttrain.data.rows import (
    BadRow,
    Conversation,
    Message,
    PreferenceRow,
    Refused,
    SftRow,
    conversation_row,
    preference_row,
    sft_row,
    turn,
)
from posttrain.data.sources.base import Record, Source, SourceKind
from posttrain.data.sources.fields import (
    convert_each,
    number,
    positive_margin,
    read_field,
    read_sharegpt,
    read_turns,
    require,
    row_license,
    scored_margin,
    split_pair,
)
from posttrain.errors import UserError

META_TEXT = 200  # characters: longer texts of other columns are content, not metadata


@dataclass(frozen=True, kw_only=True)
class Generic(Source):
    """`shape` names the columns that hold the conversation; `auto` takes the first that the first records have."""

    shape: Literal[
        "auto",
        "messages",
        "conversations",
        "prompt+completion",
        "instruction+output",
        "instruction+response",
        "chosen+rejected",
        "prompt",
        "instruction",
        "question",
        "text",
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class Shaped(Generic):
    """The options after a look at the first records: their columns, and the shapes that those make."""

    shapes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shape:
    """A known shape: the columns that it needs, those it may have, and how a record of it is read."""

    columns: tuple[str, ...]
    read: Callable[[Record], Any]
    optional: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What a recipe calls it."""
        return "+".join(self.columns)

    def __str__(self) -> str:
        return "+".join((*self.columns, *(f"[{name}]" for name in self.optional)))


def _read_completion(record: Record) -> list[Message]:
    return [*read_field(record["prompt"], "user"), *read_field(record["completion"], "assistant")]


def _read_instruction(record: Record, *extras: str) -> Message:
    instruction = turn("user", record["instruction"])
    for extra in extras:
        given = record.get(extra)
        if given is not None and not isinstance(given, str):
            raise BadRow(f"content is not text: {extra} holds {type(given).__name__}")
        if given and given.strip():
            instruction = turn("user", f"{instruction['content']}\n\n{given}")
    return instruction


def _read_answered(record: Record, extra: str, answer: str) -> list[Message]:
    return [_read_instruction(record, extra), turn("assistant", record[answer])]


def _read_pair(record: Record) -> tuple[list[Message], str, str]:
    return split_pair(record.get("prompt"), record["chosen"], record["rejected"])


# The first that fits is taken: where a dataset has a conversation and its parts, the conversation holds all turns.
SFT_SHAPES = (
    Shape(("messages",), lambda record: read_turns(record["messages"])),
    Shape(("conversations",), read_sharegpt, ("system",)),
    Shape(("prompt", "completion"), _read_completion),
    Shape(("instruction", "output"), lambda record: _read_answered(record, "input", "output"), ("input",)),
    Shape(("instruction", "response"), lambda record: _read_answered(record, "context", "response"), ("context",)),
)
PREFERENCE_SHAPES = (Shape(("chosen", "rejected"), _read_pair, ("prompt",)),)
PROMPT_SHAPES = (
    Shape(("prompt",), lambda record: read_field(record["prompt"], "user")),
    Shape(("instruction",), lambda record: [_read_instruction(record, "input", "context")], ("input", "context")),
    Shape(("question",), lambda record: [turn("user", record["question"])]),
    Shape(("text",), lambda record: [turn("user", record["text"])]),
)
SHAPES = (*SFT_SHAPES, *PREFERENCE_SHAPES, *PROMPT_SHAPES)
_PROMPTS = {shape.name: shape for shape in PROMPT_SHAPES}


def prepare(options: Generic, first: Sequence[Record]) -> Generic:
    """Decide the shapes of a dataset: the one that the recipe names, or those whose columns one of `first` has.

    Raises:
        UserError: None of the records has the columns of the named shape, or of any.
    """
    known = [shape for shape in SHAPES if options.shape in ("auto", shape.name)]
    shapes = [
        shape.name for shape in known if any(all(column in record for column in shape.columns) for record in first)
    ]
    columns = tuple(dict.fromkeys(column for record in first for column in record))
    if first and not shapes:
        found = ", ".join(columns) or "(none)"
        if options.shape == "auto":
            listed = "; ".join(str(shape) for shape in known)
            problem = f"has none of the known shapes; its columns are {found}; known are {listed}"
        else:
            problem = f"has not the shape {options.shape}; its columns are {found}"
        raise UserError(f"{options.path}: {problem}; rename the columns, or name the source it comes from")
    given = {field.name: getattr(options, field.name) for field in fields(Generic)}
    return Shaped(**given, shapes=tuple(shapes), columns=columns)


def _shape_for(options: Generic, shapes: tuple[Shape, ...], makes: str) -> Shape:
    """Return the first decided shape among those of one contract; options that were not prepared name theirs."""
    decided = options.shapes if isinstance(options, Shaped) else (options.shape,)
    for shape in shapes:
        if shape.name in decided:
            return shape
    if "auto" in decided:
        raise ValueError("a shape of `auto` is decided by `prepare`, before the first part is converted")
    found = f"; its columns are {', '.join(options.columns)}" if isinstance(options, Shaped) else ""
    wanted = "; ".join(str(shape) for shape in shapes)
    raise UserError(
        f"{options.path}: has the shape {', '.join(decided)}, which holds no {makes}{found}; expected here: {wanted}; "
        "rename the columns, or move the entry: conversations belong under data.sft, pairs under data.preference, and "
        "prompts are answered by an entry of generate (rollout: respond)"
    )


def _common(record: Record, shape: Shape, options: Source, unit: int) -> dict[str, Any]:
    """Return what both contracts share; `meta` keeps short values of other columns, such as a subset's name."""
    used = {*shape.columns, *shape.optional, "language", "lang", "license"}
    short = {
        name: value
        for name, value in record.items()
        if name not in used and isinstance(value, (bool, int, float, str)) and len(str(value)) <= META_TEXT
    }
    return {
        "source": options.label,
        "language": language_code(record.get("language", record.get("lang"))),
        "license": row_license(options, record),
        "meta": {**short, "row": unit},
        "units": (unit,),
    }


def to_sft(records: Iterable[Record], options: Generic, start: int) -> Iterator[SftRow | Refused]:
    """Convert records of one decided shape to SFT rows, one for one.

    Raises:
        UserError: The shape holds preference pairs.
    """
    shape: Shape | None = None

    def convert(record: Record, unit: int) -> SftRow:
        nonlocal shape
        shape = shape or _shape_for(options, SFT_SHAPES, "conversations to learn")
        require(record, shape.columns)
        return sft_row(shape.read(record), **_common(record, shape, options, unit))

    return convert_each(records, start, convert)


def to_prompts(records: Iterable[Record], options: Generic, start: int) -> Iterator[Conversation | Refused]:
    """Convert records of one decided shape to conversations, answered or not, one for one.

    Of `prompt` and `completion`, or an instruction and its answer, the second may be empty or missing.

    Raises:
        UserError: The shape holds no prompts.
    """
    shape: Shape | None = None

    def convert(record: Record, unit: int) -> Conversation:
        nonlocal shape
        shape = shape or _shape_for(options, (*SFT_SHAPES, *PROMPT_SHAPES), "prompts")
        given = _given(record, shape)
        require(record, given.columns)
        return conversation_row(given.read(record), **_common(record, shape, options, unit))

    return convert_each(records, start, convert)


def _given(record: Record, shape: Shape) -> Shape:
    """Return the shape of a record that may lack its answer: then that of its prompt alone."""
    if len(shape.columns) < 2:
        return shape
    asked, answered = shape.columns
    answer = record.get(answered)
    missing = answer is None or answer == [] or (isinstance(answer, str) and not answer.strip())
    return _PROMPTS[asked] if missing else shape


def _margin(record: Record) -> float | None:
    stated = number(record, "margin")
    return scored_margin(record) if stated is None else positive_margin(stated)


def to_preference(records: Iterable[Record], options: Generic, start: int) -> Iterator[PreferenceRow | Refused]:
    """Convert records of one decided shape to preference rows, one for one.

    `margin` is a `margin` column, or `score_chosen - score_rejected`, or None; ties are refused.

    Raises:
        UserError: The shape holds conversations.
    """
    shape: Shape | None = None

    def convert(record: Record, unit: int) -> PreferenceRow:
        nonlocal shape
        shape = shape or _shape_for(options, PREFERENCE_SHAPES, "pairs")
        require(record, shape.columns)
        prompt, chosen, rejected = shape.read(record)
        common = _common(record, shape, options, unit)
        return preference_row(prompt, chosen, rejected, margin=_margin(record), **common)

    return convert_each(records, start, convert)


KIND = SourceKind(
    name="generic",
    options=Generic,
    to_sft=to_sft,
    to_prompts=to_prompts,
    to_preference=to_preference,
    prepare=prepare,
)
