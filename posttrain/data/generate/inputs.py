"""The rows that a `generate` entry works on: of a data source, of an earlier entry, or none but their numbers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from posttrain.assets import is_hub_id
from posttrain.data.chunks import stretches
from posttrain.data.files import DataFile, find_files
from posttrain.data.generate.parts import Refusals, finished, read_rows
from posttrain.data.generate.rows import InputRow
from posttrain.data.languages import language_code
from posttrain.data.parts import prepared
from posttrain.data.read import read_source
from posttrain.data.rows import UNKNOWN_LANGUAGE, Conversation, Refused, without_units
from posttrain.data.sources import SOURCES, Record, Source, entry_options
from posttrain.data.steps.base import Rejected
from posttrain.data.steps.language import as_stated
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import MagpieRollout, Respond, Rollout, Translate

_BLOCK = 1 << 20  # bytes read at a time to count lines


def input_rows(entry: Rollout, earlier: Mapping[str, Path], *, refused: Refusals | None = None) -> Iterator[InputRow]:
    """Yield the rows of an entry, numbered from 0, in the order of where they come from.

    A source is prepared and converted as the build of `data` does it, its entry's `language` chooses rows as there. For
    a rollout that needs no answers, conversations that end with a user turn are rows too. A row's id is that of its
    content, with `#2` and so on for rows of equal content, so that each draws its own answers.
    Rows of an earlier entry keep their ids; those that failed there come with their input and the reason.

    Args:
        entry: The options, in which `input_problems` finds nothing.
        earlier: The finished folders of the entries before it, by name.
        refused: Where to note what no row can be made of; it is left out in silence without.

    Raises:
        UserError: The rows cannot be read.
    """
    if entry.rows_from is not None:
        rows = _earlier_rows(entry, earlier)
    elif entry.source is not None:
        rows = _source_rows(entry, entry_options(entry.source), refused)
    else:
        assert isinstance(entry, MagpieRollout)
        language = _language(entry)
        rows = (
            InputRow(number=number, id=f"{entry.name}:{number}", messages=[], language=language)
            for number in range(entry.rows)
        )
    return islice(rows, entry.max_rows)


def input_problems(entry: Rollout) -> list[str]:
    """Return what is wrong with where an entry's rows come from, each with the key at fault; reads nothing."""
    if entry.source is None:
        return []
    options = entry_options(entry.source)
    # These say how much of a source a mixture takes. Here all of it is read, and taking nothing away is not what they
    # ask for.
    return [
        f"generate.{entry.name}.source.{key}: has no effect here; use max_rows of the entry itself"
        for key in ("fraction", "max_rows", "repeat")
        if getattr(options, key) is not None
    ]


def input_total(entry: Rollout, earlier: Mapping[str, Path]) -> int | None:
    """Return how many rows there are at most, where that is cheap to know; what is refused is counted too."""
    if entry.rows_from is not None:
        summary = finished(earlier[entry.rows_from])
        total = None if summary is None else summary.rows
    elif entry.source is not None:
        total = _records(entry_options(entry.source))
    else:
        total = getattr(entry, "rows", None)
    if entry.max_rows is None or total is None:
        return total
    return min(total, entry.max_rows)


def _language(entry: Rollout) -> str:
    return language_code(entry.language) if entry.language is not None else UNKNOWN_LANGUAGE


def _earlier_rows(entry: Rollout, earlier: Mapping[str, Path]) -> Iterator[InputRow]:
    assert entry.rows_from is not None
    language = _language(entry)
    for number, row in enumerate(read_rows(earlier[entry.rows_from])):
        yield InputRow(
            number=number,
            id=row["id"],
            messages=row["input"] if row["messages"] is None else row["messages"],
            language=language if row["language"] == UNKNOWN_LANGUAGE else row["language"],
            license=row["license"],
            meta=json.loads(row["meta"]),
            failed=row["failed"],
        )


def _source_rows(entry: Rollout, options: Source, refused: Refusals | None) -> Iterator[InputRow]:
    language = _language(entry)
    # Of ids as numbers of 60 bits: a fifth of the memory of the texts. Two that agree by chance cost one row its "#2".
    seen: set[int] = set()
    times: dict[str, int] = {}
    for number, row in enumerate(_converted(options, _needs_answers(entry), refused)):
        row_id, short = row.id, int(row.id[:15], 16)
        if short in seen:
            times[row.id] = times.get(row.id, 1) + 1
            row_id = f"{row.id}#{times[row.id]}"
        seen.add(short)
        yield InputRow(
            number=number,
            id=row_id,
            messages=row.messages,
            language=language if row.language == UNKNOWN_LANGUAGE else row.language,
            license=row.license,
            meta=json.loads(row.meta),
        )


def _needs_answers(entry: Rollout) -> bool:
    """Say whether a rollout works on answers, which `respond` writes and a translation of user turns leaves alone."""
    return not (isinstance(entry, Respond) or (isinstance(entry, Translate) and entry.turns == "user"))


def _converted(options: Source, answered: bool, refused: Refusals | None) -> Iterator[Conversation]:
    """Convert a source, one record at a time: nothing waits while thousands are parsed."""
    kind = SOURCES[options.source]
    convert = kind.to_sft if answered else kind.to_prompts or kind.to_sft
    assert convert is not None
    begun = prepared(kind.licensed(options), read_source(options).chunks)
    if begun is None:
        raise UserError(f"{options.path}: holds no rows")
    options, chunks = begun

    def refuse(step: str, reason: str, record: Record | str) -> None:
        if refused is not None:
            refused.add(options.label, step, reason, record)

    for start, records in stretches(chunks, kind.whole, lambda item: refuse("read", item.reason, item.text)):
        for made in convert(records, options, start):
            if isinstance(made, Refused):
                refuse("convert", made.reason, made.source_row)
                continue
            row = as_stated(made, options.languages)
            if isinstance(row, Rejected):
                refuse("language", row.reason, without_units(made))
            else:
                yield row


def _records(options: Source) -> int | None:
    if SOURCES[options.source].whole or options.aligned_files is not None or is_hub_id(options.path):
        return None
    counts = [_count(file) for file in find_files(options)]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _count(file: DataFile) -> int | None:
    if file.name.endswith(".parquet"):
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(file.path) as table:
            return int(table.metadata.num_rows)
    if not file.name.endswith((".jsonl", ".jsonl.gz")):
        return None
    lines, last = 0, b"\n"
    with gzip.open(file.path) if file.name.endswith(".gz") else file.path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")
