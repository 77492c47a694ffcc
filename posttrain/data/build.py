"""Builds the SFT and preference sets of a recipe: read, convert, filter, deduplicate, sample, split, shuffle, write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from posttrain.data.progress import counting
from posttrain.data.read import Unreadable, check_source_exists, read_source
from posttrain.data.rows import UNKNOWN_LANGUAGE, Refused, Row
from posttrain.data.sources import SOURCES, Record, Source, SourceKind, entry_options
from posttrain.data.split import Groups, HeldOut, hold_out, ordinal, sample, split_keys
from posttrain.data.summary import SetSummary, SourceSummary, Summary
from posttrain.data.tables import Spool, TableWriter, refused_record
from posttrain.errors import UserError
from posttrain.recipe.schema import Data

SETS = ("sft", "preference")
_REASONS_SHOWN = 3


@dataclass(slots=True)
class _Kept:
    """A row that waits in the spool: what its fate depends on, and how often it is taken."""

    id: str
    offset: int
    keys: tuple[str, ...]
    source: SourceSummary
    copies: int = 0
    group: str = ""


@dataclass
class _Set:
    """One set while it is built."""

    name: str
    summary: SetSummary
    spool: Spool
    rejected: TableWriter
    kept: dict[str, _Kept]

    def reject(self, source: SourceSummary, step: str, reason: str, record: Any) -> None:
        """Write to rejected.parquet and count."""
        source.reject(step, reason)
        self.rejected.write(refused_record(source.name, step, reason, record))
        self.summary.rejected += 1


def build(data: Data, seed: int, out: Path, progress: bool | None = None) -> Summary:
    """Build the sets that a recipe has.

    Writes `out/{sft,preference}/{train,validation,rejected}.parquet` and `out/summary.json`. Equal input files,
    entries and seed give equal bytes. Nothing is written when it fails.

    Args:
        data: The recipe's section; entries are options of their sources, or mappings that passed the recipe's checks.
        seed: Decides sampling, the held-out rows and the order.
        out: The folder to write to; made if it is not there.
        progress: Whether to show a line that counts rows; by default if standard error is a terminal.

    Raises:
        UserError: Sources that are missing, damaged, of no known shape, or give no row at all, all of them together.
    """
    entries = {name: [entry_options(entry) for entry in getattr(data, name)] for name in SETS}
    entries = {name: options for name, options in entries.items() if options}
    if not entries:
        raise UserError("data: there is nothing to build; give data.sft or data.preference at least one entry")
    _raise_any(_problems(entries))
    if (out / "summary.json").exists():
        raise UserError(f"{out}: holds a build already; choose another folder")
    staging = out / ".unfinished"
    new = not out.exists()
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        with counting(progress) as count:
            summary = _build(entries, data, seed, staging, count)
        text = json.dumps(summary.to_json(), indent=2, ensure_ascii=False, sort_keys=True)
        (staging / "summary.json").write_text(text + "\n", encoding="utf-8")
        for name in (*entries, "summary.json"):
            (staging / name).replace(out / name)
        staging.rmdir()
    except BaseException:
        shutil.rmtree(out if new else staging)
        raise
    return summary


def _problems(entries: dict[str, list[Source]]) -> list[str]:
    return [
        f"data.{name}.{number}.{problem}"
        for name, several in entries.items()
        for number, options in enumerate(several)
        for problem in (
            *SOURCES[options.source].check(options),
            *(f"path: {problem}" for problem in check_source_exists(options)),
        )
    ]


def _raise_any(problems: list[str]) -> None:
    if problems:
        raise UserError(problems)


def _build(
    entries: dict[str, list[Source]], data: Data, seed: int, folder: Path, count: Callable[[str], None]
) -> Summary:
    with ExitStack() as stack:
        sets = []
        for name in entries:
            rejected = stack.enter_context(TableWriter(folder / name / "rejected.parquet", "rejected"))
            spool = stack.enter_context(closing(Spool(folder, name)))
            sets.append(_Set(name, SetSummary([]), spool, rejected, {}))
        _read_all(sets, entries, seed, count)
        rows = {part.name: [row for row in part.kept.values() if row.copies] for part in sets}
        groups = Groups(row.keys for several in rows.values() for row in several)
        for several in rows.values():
            for row in several:
                row.group = groups.of(row.keys)
        held = hold_out({name: [row.group for row in several] for name, several in rows.items()}, data.validation, seed)
        for part in sets:
            _write(part, rows[part.name], held[part.name], folder / part.name, seed)
    _raise_any([problem for part in sets for problem in _no_training_rows(part)])
    return Summary(seed, {part.name: part.summary for part in sets})


def _read_all(sets: list[_Set], entries: dict[str, list[Source]], seed: int, count: Callable[[str], None]) -> None:
    problems: list[str] = []
    for part in sets:
        for number, options in enumerate(entries[part.name]):
            entry = f"data.{part.name}.{number}"
            try:
                _read(part, entry, options, seed, count)
            except UserError as error:
                problems += [f"{entry}.path: {problem}" for problem in error.problems]
    _raise_any(problems)


def _read(part: _Set, entry: str, options: Source, seed: int, count: Callable[[str], None]) -> None:
    """Read, convert, filter, deduplicate and sample one entry into the spool."""
    kind = SOURCES[options.source]
    reading = read_source(options)
    source = SourceSummary(entry, options.label, options.source, reading.provenance, kind.unit)
    part.summary.sources.append(source)
    passed_on = 0

    def records() -> Iterator[Record]:
        nonlocal passed_on
        for item in reading.items:
            source.read += 1
            count(f"{part.name} {options.label}")
            if isinstance(item, Unreadable):
                part.reject(source, "read", item.reason, item.text)
                continue
            passed_on += 1
            source.units += kind.count_units(item)
            yield item

    used: set[int] = set()
    ids = []
    stream = records()
    for made in _converter(kind, part.name)(stream, options):
        if isinstance(made, Refused):
            part.reject(source, "convert", made.reason, made.source_row)
            continue
        used.update(made.units)
        source.rows += 1
        row = _with_language(made, options.languages)
        if refusal := _refuse(row, options.languages, part.kept):
            part.reject(source, *refusal, _without_units(row))
            continue
        part.kept[row.id] = _Kept(row.id, part.spool.add(row), split_keys(row), source)
        ids.append(row.id)
    source.used = len(used)
    for _ in stream:  # where the converter left some, they are counted as units, and missed by the check
        pass
    source.check_reading(passed_on)
    if not ids and "dedup" not in source.rejected:
        raise UserError(f"{options.path}: {_nothing(source)}")
    for row_id, copies in sample(ids, options, seed):
        part.kept[row_id].copies = copies
    for row_id in ids:
        if not part.kept[row_id].copies:
            source.sampled_out += 1


def _without_units(row: Row) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name != "units"}


def _converter(kind: SourceKind, name: str) -> Callable[..., Iterator[Any]]:
    converter = {"sft": kind.to_sft, "preference": kind.to_preference}[name]
    if converter is None:
        raise UserError(f"source {kind.name} makes no {name} rows; name another source")
    return converter


def _with_language(row: Row, languages: list[str]) -> Row:
    """Give a row whose source does not say its language the entry's, where the entry names one."""
    if row.language == UNKNOWN_LANGUAGE and len(languages) == 1:
        return replace(row, language=languages[0])
    return row


def _refuse(row: Row, languages: list[str], kept: dict[str, _Kept]) -> tuple[str, str] | None:
    """Return the step and the reason if a row is not to be kept."""
    if languages and row.language == UNKNOWN_LANGUAGE:
        return "language", "language not stated"
    if languages and row.language not in languages:
        return "language", f"language not selected: {row.language}"
    if row.id in kept:
        return "dedup", f"duplicate: of a row of {kept[row.id].source.name}"
    return None


def _nothing(source: SourceSummary) -> str:
    if not source.read:
        return "holds no rows"
    reasons = [f"{reason} ({number})" for reason, number in source.reasons()]
    shown = ", ".join(reasons[:_REASONS_SHOWN]) + (", ..." if len(reasons) > _REASONS_SHOWN else "")
    return f"none of its {source.read} rows can be used: {shown}"


def _write(part: _Set, rows: list[_Kept], held: HeldOut, folder: Path, seed: int) -> None:
    """Split one set, shuffle it and write its files."""
    train, validation = [], []
    for row in rows:
        if row.group in held.excluded:
            reason = "prompt held out of another set"
            part.reject(row.source, "split", reason, _without_units(part.spool.get(row.offset)))
            continue
        if row.group in held.validation:
            row.source.validation += 1
            validation.append((ordinal(seed, "order", part.name, row.id), row.offset, row))
        else:
            row.source.train += 1
            row.source.train_repeats += row.copies - 1
            train += [(ordinal(seed, "order", part.name, row.id, copy), row.offset, row) for copy in range(row.copies)]
    for name, order in (("train", train), ("validation", validation)):
        with TableWriter(folder / f"{name}.parquet", part.name) as table:
            for _, offset, kept in sorted(order, key=lambda item: item[0]):
                written = part.spool.get(offset)
                kept.source.licenses[written.license or "unknown"] += 1
                kept.source.languages[written.language] += 1
                table.write(vars(written))
        setattr(part.summary, name, table.rows)
    for source in part.summary.sources:
        source.check_rows()


def _no_training_rows(part: _Set) -> list[str]:
    if part.summary.train:
        return []
    held = part.summary.validation
    return [f"data.{part.name}: no row is left to train on, {held} are held out; take more rows, or hold out fewer"]
