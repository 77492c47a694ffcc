"""TurkuNLP/avoin-avustaja-unfiltered: Finnish conversations gathered with a fork of Open-Assistant.

Either level of OASST, or conversations under `messages`, told by the columns of the first record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from posttrain.data.languages import language_code
from posttrain.data.rows import UNKNOWN_LANGUAGE, PreferenceRow, Refused, SftRow, sft_row
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


def _in_finnish(row: RowT) -> RowT:
    return replace(row, language=LANGUAGE) if row.language == UNKNOWN_LANGUAGE else row


def to_sft(records: Iterable[Record], options: AvoinAvustaja, start: int) -> Iterator[SftRow | Refused]:
    """Convert records to SFT rows: one a conversation, or as those of OASST."""
    conversations, records = _look(records)

    def convert(record: Record, unit: int) -> SftRow:
        require(record, ("messages",))
        return sft_row(
            read_turns(record["messages"]),
            source=options.label,
            language=language_code(record.get("language", record.get("lang"))),
            license=row_license(options, record, LICENSE),
            meta=present(id=record.get("id"), row=unit),
            units=(unit,),
        )

    made = convert_each(records, start, convert) if conversations else oasst.to_sft(records, options, start)
    for row in made:
        yield row if isinstance(row, Refused) else _in_finnish(row)


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
    for row in oasst.to_preference(records, options, start):
        yield row if isinstance(row, Refused) else _in_finnish(row)


KIND = SourceKind(
    name="avoin_avustaja",
    options=AvoinAvustaja,
    to_sft=to_sft,
    to_preference=to_preference,
    unit="message",
    whole=True,
    license=LICENSE,
    count_units=count_messages,
)
