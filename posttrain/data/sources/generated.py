"""Rows that an entry of `generate` wrote: the recipe gives its name, the `data` stage the folder with its parts.

`meta` has what the row came with and what the rollouts added to it, in one level: `ratings: {"0": 4.0}` becomes
`ratings.0`. Longer texts and lists of objects are left out; they are in the parts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.data.generate.ratings import MAX_SCORE
from posttrain.data.languages import language_code
from posttrain.data.rows import BadRow, Conversation, Message, Refused, SftRow, conversation_row, sft_row
from posttrain.data.sources.base import Record, Source, SourceKind
from posttrain.data.sources.fields import RowT, convert_each, present, read_turns, require, row_license
from posttrain.data.sources.generic import META_TEXT

GENERATED = "generated"  # the key of a part's `meta` under which is what rollouts added


@dataclass(frozen=True, kw_only=True)
class Generated(Source):
    """`min_quality` and `min_fluency` are the least ratings of the last answer; each refuses rows that have none."""

    min_quality: float | None = None
    min_fluency: float | None = None


def check(options: Generated) -> list[str]:
    """Find minima that are not on the scale of the ratings."""
    minima = {"min_quality": options.min_quality, "min_fluency": options.min_fluency}
    return [
        f"{name}: {minimum:g} is not on the scale, which goes from 0 to {MAX_SCORE}"
        for name, minimum in minima.items()
        if minimum is not None and not 0 <= minimum <= MAX_SCORE
    ]


def rating(generated: Mapping[str, Any], scale: str) -> float | None:
    """Return the rating of a row's last answer, or None.

    It is that of a `rate` entry; for `quality` also the one by which `respond` chose the answer among its samples.
    """
    found = generated.get(scale)
    if found is None and scale == "quality":
        found = (generated.get("ratings") or {}).get(str(generated.get("sample")))
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
        return None
    return float(found)


def _require_rating(generated: Mapping[str, Any], scale: str, minimum: float | None) -> None:
    if minimum is None:
        return
    found = rating(generated, scale)
    if found is None:
        raise BadRow(f"unrated: {scale}")
    if found < minimum:
        raise BadRow(f"{scale} below min_{scale}: {found:g}")


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the short values of nested objects with their names, joined by dots; a list of words is one text."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
        return
    if isinstance(value, list) and value and all(isinstance(item, (str, int, float)) for item in value):
        value = ", ".join(map(str, value))
    if isinstance(value, (bool, int, float, str)) and len(str(value)) <= META_TEXT:
        yield name, value


def _rows(
    records: Iterable[Record], options: Generated, start: int, build: Callable[..., RowT]
) -> Iterator[RowT | Refused]:
    def convert(record: Record, unit: int) -> RowT:
        if record.get("failed") is not None:
            raise BadRow(f"generation failed: {record['failed']}")
        require(record, ("id", "messages", "meta"))
        meta = json.loads(record["meta"])
        generated = meta.pop(GENERATED, None) or {}
        _require_rating(generated, "quality", options.min_quality)
        _require_rating(generated, "fluency", options.min_fluency)
        # `row` of the input is the number in another source, and would pass for this one's.
        meta.pop("row", None)
        return build(
            read_turns(record["messages"]),
            source=options.label,
            language=language_code(record.get("language")),
            license=row_license(options, record),
            meta={**dict(_flat(meta)), **dict(_flat(generated)), **present(id=record["id"], row=unit)},
            units=(unit,),
        )

    return convert_each(records, start, convert)


def _answered_row(messages: Sequence[Message], **about: Any) -> SftRow:
    if messages and messages[-1]["role"] == "user":
        raise BadRow("not answered yet, as a respond entry with rows_from does")
    return sft_row(messages, **about)


def to_sft(records: Iterable[Record], options: Generated, start: int) -> Iterator[SftRow | Refused]:
    """Convert rows of parts to SFT rows, one for one; a row that failed is refused with its reason."""
    return _rows(records, options, start, _answered_row)


def to_prompts(records: Iterable[Record], options: Generated, start: int) -> Iterator[Conversation | Refused]:
    """Convert rows of parts as `to_sft` does, answered or not."""
    return _rows(records, options, start, conversation_row)


KIND = SourceKind(name="generated", options=Generated, to_sft=to_sft, to_prompts=to_prompts, check_own=check)
