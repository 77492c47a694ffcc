"""One part of a source, in any process: parse, convert, judge each row, and write what is left with its keys.

A part leaves three files beside each other: `rows.arrow`, the rows; `rejected.arrow`, what was refused; and
`keys.npy`, a record a row with what the decisions over all rows need (`KEYS`). Where near duplicates are looked for
there is `signatures.npy` too. `part.json`, the counts, comes last: a part that has it is whole.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.data.chunks import Chunk, Unreadable, stretches
from posttrain.data.read import read_source
from posttrain.data.rows import Refused, Row, reason_kind, without_units
from posttrain.data.sources import SOURCES, Record, Source
from posttrain.data.split import prompt_key, tree_key
from posttrain.data.steps.base import Rejected, answers, user_texts
from posttrain.recipe.schema import Data

if TYPE_CHECKING:
    import numpy

    from posttrain.data.steps.base import Step
    from posttrain.data.steps.decontaminate import EvalItem

# id, text: 16 bytes that equal content, and equal content but for case and blanks, share. prompt, tree: what ties a
# row to others for the validation split; no tree is NULs. Lengths are in characters, of all turns of a side.
KEYS = [
    ("id", "S16"),
    ("text", "S16"),
    ("prompt", "S16"),
    ("tree", "S16"),
    ("language", "u2"),
    ("license", "u2"),
    ("prompt_chars", "u4"),
    ("answer_chars", "u4"),
]
_AT_ONCE = 1024  # rows that a step is given
_DONE = "part.json"


@dataclass(frozen=True)
class Task:
    """What to build: part `number` of entry `entry` of a set. Without a chunk the part is the whole source."""

    kind: str
    entry: int
    number: int
    options: Source
    chunk: Chunk | None
    folder: Path


@dataclass
class Counts:
    """What became of a part. `rejected` counts by step and reason, the two lists name the codes of keys."""

    read: int = 0
    passed_on: int = 0
    units: int = 0
    used: int = 0
    rows: int = 0
    kept: int = 0
    masked: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, dict[str, int]] = field(default_factory=dict)
    languages: list[str] = field(default_factory=list)
    licenses: list[str | None] = field(default_factory=list)


def part_folder(work: Path, kind: str, entry: int, number: int) -> Path:
    """Return where a part is kept."""
    return work / "parts" / f"{kind}-{entry:03}" / f"{number:06}"


def finished(folder: Path) -> Counts | None:
    """Return the counts of a part that is whole, or None; one whose mark is damaged is made anew."""
    try:
        return Counts(**json.loads((folder / _DONE).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


class Worker:
    """What one process needs to build parts: the steps of each entry, made when they are first asked for."""

    def __init__(self, data: Data, tokenizer_file: Path | None, evals: Sequence[EvalItem]) -> None:
        self._data = data
        self._tokenizer_file = tokenizer_file
        self._evals = evals
        self._steps: dict[tuple[str, int], list[Step]] = {}
        self._shared: list[Step] | None = None

    def steps(self, task: Task) -> list[Step]:
        """Return the steps that the rows of an entry pass, in order."""
        from posttrain.data.steps.chain import row_steps

        key = (task.kind, task.entry)
        if key not in self._steps:
            self._steps[key] = row_steps(self._data, task.options, self._tokenizer_file, extra=self._extra())
        return self._steps[key]

    def _extra(self) -> list[Step]:
        if self._shared is None:
            self._shared = []
            if self._data.decontaminate is not None:
                from posttrain.data.steps.decontaminate import Decontaminate

                self._shared = [Decontaminate(self._data.decontaminate, self._evals)]
        return self._shared

    def build(self, task: Task) -> Counts:
        """Build a part and return its counts; one that is whole already is left as it is."""
        return finished(task.folder) or _Part(self, self._data, task).build()


_worker: Worker | None = None


def begin(data: Data, tokenizer_file: Path | None, evals: Sequence[EvalItem]) -> None:
    """Prepare this process. `evals` are the prompts that rows are decontaminated against."""
    global _worker
    # The processes are as many as there are cores: threads of the libraries would only wait for each other.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    _worker = Worker(data, tokenizer_file, evals)


def build_part(task: Task) -> Counts:
    """Build one part in a process that `begin` has prepared."""
    assert _worker is not None, "begin() comes first"
    return _worker.build(task)


class _Part:
    def __init__(self, worker: Worker, data: Data, task: Task) -> None:
        self._worker = worker
        self._data = data
        self._task = task
        self._kind = SOURCES[task.options.source]
        self._counts = Counts()
        self._rejected: list[dict[str, str]] = []

    def build(self) -> Counts:
        from posttrain.data.tables import row_table, table_of

        counts, folder = self._counts, self._task.folder
        rows = list(self._judged(self._converted()))
        counts.kept = len(rows)
        folder.mkdir(parents=True, exist_ok=True)
        _write_arrow(folder / "rows.arrow", row_table(self._task.kind, rows))
        _write_arrow(folder / "rejected.arrow", table_of("rejected", self._rejected))
        _write_array(folder / "keys.npy", self._keys(rows))
        if compares_prompts(self._data, self._task):
            from posttrain.data.minhash import prompt_text, signatures

            assert self._data.duplicates.near is not None
            found = signatures([prompt_text(row) for row in rows], self._data.duplicates.near)
            _write_array(folder / "signatures.npy", found)
        waiting = folder / f"{_DONE}.new"
        waiting.write_text(json.dumps(asdict(counts)), encoding="utf-8")
        os.replace(waiting, folder / _DONE)
        return counts

    def _reject(self, step: str, reason: str, record: Any) -> None:
        from posttrain.data.tables import refused_record

        reasons = self._counts.rejected.setdefault(step, {})
        reasons[reason_kind(reason)] = reasons.get(reason_kind(reason), 0) + 1
        self._rejected.append(refused_record(self._task.options.label, step, reason, record))

    def _runs(self) -> Iterator[tuple[int, list[Record]]]:
        """Yield stretches of readable records with the number of the first, and count them."""
        chunks = [self._task.chunk] if self._task.chunk is not None else read_source(self._task.options).chunks
        for start, stretch in stretches(chunks, self._kind.whole, self._unreadable):
            records: list[Record] = list(stretch)
            self._counts.read += len(records)
            self._counts.passed_on += len(records)
            self._counts.units += sum(map(self._kind.count_units, records))
            yield start, records

    def _unreadable(self, item: Unreadable) -> None:
        self._counts.read += 1
        self._reject("read", item.reason, item.text)

    def _converted(self) -> Iterator[Row]:
        convert = {"sft": self._kind.to_sft, "preference": self._kind.to_preference}[self._task.kind]
        assert convert is not None, "the recipe's checks let no such source through"
        for start, records in self._runs():
            used: set[int] = set()
            refused = 0
            for made in convert(records, self._task.options, start):
                if isinstance(made, Refused):
                    refused += 1
                    self._reject("convert", made.reason, made.source_row)
                    continue
                used.update(made.units)
                self._counts.rows += 1
                yield made
            self._counts.used += len(used)

    def _judged(self, rows: Iterator[Row]) -> Iterator[Row]:
        from posttrain.data.steps.chain import apply

        steps = self._worker.steps(self._task)
        identified = any(step.name == "language" for step in steps)
        for batch in _batches(rows if identified else self._of_languages(rows)):
            kept, refused = apply(steps, batch)
            for row, step, reason in refused:
                self._reject(step, reason, without_units(row))
            yield from kept

    def _of_languages(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Go by what the source says of a row's language, where nobody looks at the text."""
        from posttrain.data.steps.language import as_stated

        for row in rows:
            found = as_stated(row, self._task.options.languages)
            if isinstance(found, Rejected):
                self._reject("language", found.reason, without_units(row))
            else:
                yield found

    def _keys(self, rows: Sequence[Row]) -> numpy.ndarray:
        import numpy as np

        from posttrain.data.duplicates import text_key

        keys = np.zeros(len(rows), KEYS)
        languages: dict[str, int] = {}
        licenses: dict[str | None, int] = {}
        masked: Counter[str] = Counter()
        exact = self._data.duplicates.exact
        for at, row in enumerate(rows):
            own = bytes.fromhex(row.id)
            keys[at] = (
                own,
                text_key(row) if exact else own,
                prompt_key(row),
                tree_key(row),
                languages.setdefault(row.language, len(languages)),
                licenses.setdefault(row.license, len(licenses)),
                sum(map(len, user_texts(row))),
                sum(map(len, answers(row))),
            )
            if self._data.pii is not None and '"pii"' in row.meta:
                masked.update(json.loads(row.meta).get("pii") or {})
        self._counts.languages, self._counts.licenses = list(languages), list(licenses)
        self._counts.masked = dict(sorted(masked.items()))
        return keys


def compares_prompts(data: Data, task: Task) -> bool:
    """Say whether the rows of an entry are looked at for near duplicates."""
    near = data.duplicates.near
    return near is not None and task.kind in near.sets and "near_duplicates" not in task.options.skip


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_arrow(path: Path, table: Any) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def _write_array(path: Path, array: numpy.ndarray) -> None:
    import numpy as np

    np.save(path, array, allow_pickle=False)
