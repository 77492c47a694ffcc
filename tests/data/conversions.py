"""What tests of converters share: records converted by the name of their source, and what came of them."""

from __future__ import annotations

from typing import Any

from posttrain.data.rows import Conversation, PreferenceRow, Refused
from posttrain.data.sources import SOURCES

Records = list[dict[str, Any]]


def convert(source: str, makes: str, records: Records, start: int = 0, **keys: Any) -> tuple[list[Any], list[Refused]]:
    """Convert records to rows: `sft`, `preference` or `prompts`; check that each is used by one or refused once."""
    kind = SOURCES[source]
    options = kind.prepare(kind.options(source=source, path="x", **keys), records[:20])
    converter = {"sft": kind.to_sft, "preference": kind.to_preference, "prompts": kind.to_prompts}[makes]
    assert converter is not None
    made = list(converter(records, options, start))
    rows = [row for row in made if isinstance(row, (Conversation, PreferenceRow))]
    refused = [row for row in made if isinstance(row, Refused)]
    used = {unit for row in rows for unit in row.units}
    total = sum(kind.count_units(record) for record in records)
    assert sorted([*used, *(row.unit for row in refused)]) == list(range(start, start + total))
    return rows, refused


def problems(source: str, **keys: Any) -> list[str]:
    """Return the keys at fault of an entry of a recipe."""
    kind = SOURCES[source]
    return [problem.partition(":")[0] for problem in kind.check(kind.options(source=source, path="x", **keys))]


def messages(*texts: str) -> list[dict[str, str]]:
    """Return a conversation of user and assistant by turns."""
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
