"""allenai/tulu-3-sft-mixture: conversations from 19 subsets, which the column `source` names.

The licence of a row is that of its subset (`data/cards/tulu3.yaml`), so that what forbids commercial use can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache

from posttrain.data.languages import language_code
from posttrain.data.licences import SourceCard, Subset, card, normalised_name
from posttrain.data.rows import BadRow, Conversation, Refused, SftRow, conversation_row, sft_row
from posttrain.data.sources.base import Record, Source, SourceKind
from posttrain.data.sources.fields import RowT, convert_each, present, read_turns, require, row_license

LICENSE = "ODC-BY-1.0"


@dataclass(frozen=True, kw_only=True)
class Tulu3(Source):
    """`drop_subsets` names subsets to leave out, by any part of their name: `flan_v2`, `no-robots`, `wildchat`."""

    drop_subsets: list[str] = field(default_factory=list)


def _known() -> SourceCard:
    known = card("tulu3")
    if known is None:
        raise FileNotFoundError("data/cards/tulu3.yaml is not installed")
    return known


def check(options: Tulu3) -> list[str]:
    """Find names that are part of no subset's."""
    subsets = _known().subsets
    names = [normalised_name(subset.rows) for subset in subsets]
    listed = ", ".join(subset.matches for subset in subsets)
    return [
        f"drop_subsets: {wanted!r} is no subset of Tulu 3; they are {listed}"
        for wanted in options.drop_subsets
        if not normalised_name(wanted) or not any(normalised_name(wanted) in name for name in names)
    ]


@cache
def _subset(name: str) -> Subset | None:
    return _known().subset(name)


@cache
def _dropped(name: str, drop: tuple[str, ...]) -> bool:
    named = normalised_name(name)
    return any(normalised_name(wanted) in named for wanted in drop)


def _rows(
    records: Iterable[Record], options: Tulu3, start: int, build: Callable[..., RowT]
) -> Iterator[RowT | Refused]:
    drop = tuple(options.drop_subsets)

    def convert(record: Record, unit: int) -> RowT:
        require(record, ("messages",))
        named = record.get("source")
        if named is not None and not isinstance(named, str):
            raise BadRow(f"source is not text: {type(named).__name__}")
        if drop and not named:
            raise BadRow("subset not stated")
        if named and _dropped(named, drop):
            raise BadRow(f"subset dropped: {named}")
        subset = _subset(named) if named else None
        return build(
            read_turns(record["messages"]),
            source=options.label,
            language=language_code(record.get("language")),
            license=row_license(options, record, subset.license if subset else LICENSE),
            meta=present(id=record.get("id"), subset=named, row=unit),
            units=(unit,),
        )

    return convert_each(records, start, convert)


def to_sft(records: Iterable[Record], options: Tulu3, start: int) -> Iterator[SftRow | Refused]:
    """Convert records to SFT rows, one for one; `meta` has the subset and the row's id in the mixture."""
    return _rows(records, options, start, sft_row)


def to_prompts(records: Iterable[Record], options: Tulu3, start: int) -> Iterator[Conversation | Refused]:
    """Convert records as `to_sft` does, answered or not."""
    return _rows(records, options, start, conversation_row)


# Its licence differs by subset.
KIND = SourceKind(name="tulu3", options=Tulu3, to_sft=to_sft, to_prompts=to_prompts, check_own=check)
