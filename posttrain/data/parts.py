"""All parts of all entries: cut in order, built over processes, each once, whatever was interrupted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.data.chunks import Chunk
from posttrain.data.part import Counts, Task, begin, build_part, finished, part_folder
from posttrain.data.progress import Advance
from posttrain.data.read import read_source
from posttrain.data.sources import SOURCES, Source
from posttrain.errors import UserError
from posttrain.parallel import cores, ordered
from posttrain.recipe.schema import Data

if TYPE_CHECKING:
    from posttrain.data.steps.decontaminate import EvalItem
    from posttrain.recipe.schema_data import Decontamination

_LOOKED_AT = 20  # records by which a source is prepared: the first may lack an optional column
MOST_PROCESSES = 32


@dataclass
class EntryParts:
    """What the parts of one entry came to."""

    kind: str
    number: int
    options: Source
    provenance: dict[str, Any] = field(default_factory=dict)
    parts: list[tuple[Path, Counts]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Its place in the recipe."""
        return f"data.{self.kind}.{self.number}"

    @property
    def rows(self) -> int:
        """The records read so far."""
        return sum(counts.read for _, counts in self.parts)


def build_parts(
    entries: Mapping[str, Sequence[Source]], data: Data, work: Path, tokenizer_file: Path | None, advance: Advance
) -> list[EntryParts]:
    """Build every part of every entry that is not there yet.

    Args:
        entries: The options of the entries, by set.
        data: The recipe's section.
        work: Where parts are kept; those that are whole are used as they are.
        tokenizer_file: A `tokenizer.json`, where lengths are counted in tokens.
        advance: Told of the progress.

    Raises:
        UserError: What is wrong with the sources, all of it together.
    """
    found = [
        EntryParts(kind, number, options) for kind, several in entries.items() for number, options in enumerate(several)
    ]
    evals = [] if data.decontaminate is None else _evals(data.decontaminate)
    tasks = _tasks(found, work, advance)
    processes = data.num_proc or min(cores(), MOST_PROCESSES)
    at = {(entry.kind, entry.number): entry for entry in found}
    results = ordered(
        tasks,
        _build,
        processes,
        start=begin,
        arguments=(data, tokenizer_file, evals),
        preload=["posttrain.data.steps.identifier_preload"] if _identifies(entries, data) else [],
    )
    for task, done, outcome in results:
        entry = at[task.kind, task.entry]
        if isinstance(outcome, Counts):
            entry.parts.append((task.folder, outcome))
            advance(f"{entry.kind}: {entry.options.label}", done, entry.rows)
        else:
            entry.problems += outcome
    if problems := [f"{entry.key}.path: {problem}" for entry in found for problem in _problems(entry)]:
        raise UserError(list(dict.fromkeys(problems)))
    for entry in found:
        entry.parts.sort(key=lambda part: part[0])  # finished ones were noted when they were come across
    return found


def _evals(settings: Decontamination) -> list[EvalItem]:
    """Read the evaluation sets, once for all processes and before any row."""
    from posttrain.data.steps.decontaminate import load_eval_items

    return load_eval_items(settings)


def _identifies(entries: Mapping[str, Sequence[Source]], data: Data) -> bool:
    """Say whether any process will identify languages, for which it needs 940 MB that all can share."""
    every = [options for several in entries.values() for options in several]
    return data.filters.language is not None or any(getattr(options, "check_language", False) for options in every)


def _build(task: tuple[Task, float]) -> tuple[Task, float, Counts | list[str]]:
    """Build a part; what is wrong with its source comes back as text, so that other sources are read all the same."""
    from dataclasses import replace

    own, done = task
    returned = replace(own, chunk=None)  # the parent has no use for it
    try:
        return returned, done, build_part(own)
    except UserError as error:
        return returned, done, error.problems


def _tasks(found: Sequence[EntryParts], work: Path, advance: Advance) -> Iterator[tuple[Task, float]]:
    for entry in found:
        try:
            yield from _tasks_of(entry, work, advance)
        except UserError as error:
            entry.problems += error.problems


def _tasks_of(entry: EntryParts, work: Path, advance: Advance) -> Iterator[tuple[Task, float]]:
    kind, options = SOURCES[entry.options.source], entry.options
    reading = read_source(options)
    entry.provenance = reading.provenance
    begun = prepared(options, reading.chunks)
    if begun is None:
        return
    options, chunks = begun
    pieces: Iterable[Chunk | None] = [None] if kind.whole else chunks
    for number, chunk in enumerate(pieces):
        folder = part_folder(work, entry.kind, entry.number, number)
        done = 1.0 if chunk is None else chunk.done
        if (counts := finished(folder)) is not None:
            entry.parts.append((folder, counts))
            advance(f"{entry.kind}: {options.label}", done, entry.rows)
        else:
            yield Task(entry.kind, entry.number, number, options, chunk, folder), done


def prepared(options: Source, chunks: Iterator[Chunk]) -> tuple[Source, Iterator[Chunk]] | None:
    """Return an entry's options, prepared by its first records, and all of its chunks; None where it has no rows.

    Raises:
        UserError: The source refuses the records.
    """
    first = next(chunks, None)
    if first is None:
        return None
    records = [item for item in islice(first.items(), _LOOKED_AT) if isinstance(item, dict)]
    return SOURCES[options.source].prepare(options, records), chain([first], chunks)


def _problems(entry: EntryParts) -> list[str]:
    """Return what is wrong with a source, or that no row of it can be used."""
    from collections import Counter

    if entry.problems:
        return entry.problems
    if any(counts.kept for _, counts in entry.parts):
        return []
    read = entry.rows
    if not read:
        return [f"{entry.options.path}: holds no rows"]
    reasons: Counter[str] = Counter()
    for _, counts in entry.parts:
        for several in counts.rejected.values():
            reasons.update(several)
    shown = ", ".join(f"{reason} ({number})" for reason, number in sorted(reasons.items(), key=_most_frequent)[:3])
    more = ", ..." if len(reasons) > 3 else ""
    return [f"{entry.options.path}: none of its {read} rows can be used: {shown}{more}"]


def _most_frequent(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
