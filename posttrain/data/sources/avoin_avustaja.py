"""TurkuNLP/avoin-avustaja-unfiltered: Finnish conversations gathered with a fork of Open-Assistant.

Either level of OASST, or conversations under `messages`, told by the columns of the first record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from posttrain.data.languages import language_code
from posttrain.data.rows import (
    UNKNOWN_LANGUAGE,
    Conversation,
    PreferenceRow,
    Refused,
    SftRow,
    conversation_row,
    sft_row,
)
from posttrain.data.sources import oasst
from posttrain.data.sources.base import Record, SourceKind
from posttrain.data.sources.fields import RowT, convert_each, present, read_turns, require, row_license
from posttrain.data.sources.oasst_forest import count_messages
from posttrain.errors import UserError

LANGUAGE = "fi"
LICENSE = "MIT"


@dataclass(frozen=True, kw_only=True)
class AvoinAvustaja(oasst.Oasst):
    """The options of OASST, which rows with `messages` do not need. What states no language is Finnish."""

    @property
    def source_license(self) -> str:
        """The licence of the release, for rows of an entry that states none."""
        return LICENSE


def _look(records: Iterable[Record]) -> tuple[bool, Iterator[Record]]:
    """Tell whether the records are conversations under `messages`, and return them all."""
    stream = iter(records)
    first = next(stream, None)
    if first is None:
        return False, stream
    return "messages" in first and not isinstance(first.get("prompt"), dict), chain([first], stream)


def _in_finnish(made: Iterator[RowT | Refused]) -> Iterator[RowT | Refused]:
    for row in made:
        if isinstance(row, Refused) or row.language != UNKNOWN_LANGUAGE:
            yield row
        else:
            yield replace(row, language=LANGUAGE)


def _conversations(
    records: Iterable[Record], options: AvoinAvustaja, start: int, build: Callable[..., RowT]
) -> Iterator[RowT | Refused]:
    def convert(record: Record, unit: int) -> RowT:
        require(record, ("messages",))
        return build(
            read_turns(record["messages"]),
            source=options.label,
            language=language_code(record.get("language", record.get("lang"))),
            license=row_license(options, record, LICENSE),
            meta=present(id=record.get("id"), row=unit),
            units=(unit,),
        )

    return convert_each(records, start, convert)


def to_sft(records: Iterable[Record], options: AvoinAvustaja, start: int) -> Iterator[SftRow | Refused]:
    """Convert records to SFT rows: one a conversation, or as those of OASST."""
    conversations, records = _look(records)
    if conversations:
        return _in_finnish(_conversations(records, options, start, sft_row))
    return _in_finnish(oasst.to_sft(records, options, start))


def to_prompts(records: Iterable[Record], options: AvoinAvustaja, start: int) -> Iterator[Conversation | Refused]:
    """Convert records as `to_sft` does, conversations answered or not."""
    conversations, records = _look(records)
    if conversations:
        return _in_finnish(_conversations(records, options, start, conversation_row))
    return _in_finnish(oasst.to_sft(records, options, start))


def to_preference(records: Iterable[Record], options: AvoinAvustaja, start: int) -> Iterator[PreferenceRow | Refused]:
    """Convert records to preference rows, as those of OASST.

    Raises:
        UserError: They are conversations, which hold no ranked replies.
    """
    conversations, records = _look(records)
    if conversations:
        raise UserError(
            f"{options.path}: holds conversations under messages, without ranked replies; name it under data.sft only"
        )
    yield from _in_finnish(oasst.to_preference(records, options, start))


KIND = SourceKind(
    name="avoin_avustaja",
    options=AvoinAvustaja,
    to_sft=to_sft,
    to_prompts=to_prompts,
    to_preference=to_preference,
    unit="message",
    whole=True,
    license=LICENSE,
    count_units=count_messages,
)
