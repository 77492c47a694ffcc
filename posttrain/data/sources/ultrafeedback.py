"""HuggingFaceH4/ultrafeedback_binarized: two answers to one prompt with the overall scores that a judge gave them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from posttrain.data.languages import language_code
from posttrain.data.rows import BadRow, PreferenceRow, Refused, preference_row
from posttrain.data.sources.base import Record, Source, SourceKind
from posttrain.data.sources.fields import convert_each, present, require, row_license, scored_margin, split_pair

LICENSE = "MIT"
HIGHEST = 10  # scores run from 1 to 10
COLUMNS = ("chosen", "rejected", "score_chosen", "score_rejected")


@dataclass(frozen=True, kw_only=True)
class UltraFeedback(Source):
    """Pairs whose scores differ by at least `min_margin`; ties are always dropped. On the hub, pairs are the split
    `train_prefs`.
    """

    split: str = "train_prefs"
    min_margin: float = 0.0


def check(options: UltraFeedback) -> list[str]:
    """Find a margin that no pair reaches."""
    if not 0 <= options.min_margin < HIGHEST:
        return [f"min_margin: {options.min_margin:g} is not at least 0 and below {HIGHEST}"]
    return []


def to_preference(records: Iterable[Record], options: UltraFeedback, start: int) -> Iterator[PreferenceRow | Refused]:
    """Convert records to preference rows; `margin` is `score_chosen - score_rejected`, the repeated prompt is cut."""

    def convert(record: Record, unit: int) -> PreferenceRow:
        require(record, COLUMNS)
        prompt, chosen, rejected = split_pair(record.get("prompt"), record["chosen"], record["rejected"])
        margin = scored_margin(record)
        if margin is not None and margin < options.min_margin:
            raise BadRow(f"margin below min_margin: {margin:g}")
        return preference_row(
            prompt,
            chosen,
            rejected,
            margin=margin,
            source=options.label,
            language=language_code(record.get("language")),
            license=row_license(options, record, LICENSE),
            meta=present(id=record.get("prompt_id"), row=unit),
            units=(unit,),
        )

    return convert_each(records, start, convert)


KIND = SourceKind(
    name="ultrafeedback", options=UltraFeedback, to_preference=to_preference, license=LICENSE, check_own=check
)
