"""How far the tokenize-cpt stage has come: its files, their sizes at the last note, and the place in each source."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from posttrain.train.text_files import Place
from posttrain.train.token_blocks import VALIDATION, source_file

if TYPE_CHECKING:
    from posttrain.train.text_tokens import Encoded

NOTE = "progress.json"
ASIDE = "aside.jsonl"
STEP = "tokenize"
_COLUMNS = ("source", "where", "step", "reason", "text")
_AT_ONCE = 4096  # rows


@dataclass
class Counts:
    """What has been read of a source.

    Attributes:
        documents: Documents that are trained on.
        held_out_documents: Those that are held out.
        tokens: Of the documents that are trained on.
        aside: How many documents could not be used, by the reason.
        place: Where reading goes on.
        revision: The commit of a hub dataset.
        done: Whether enough of it has been read.
        ended: Whether that was all of it.
    """

    documents: int = 0
    held_out_documents: int = 0
    tokens: int = 0
    aside: dict[str, int] = field(default_factory=dict)
    place: Place = field(default_factory=Place)
    revision: str | None = None
    done: bool = False
    ended: bool = False


class Progress:
    """The files of the stage, open to be appended to; a context manager.

    What was written after the last note is cut off on resuming, and made again. A note is made only when all that it
    speaks of is on the disk.

    Args:
        folder: Where the tokens go.
        work: Where the note and what is set aside go.
        resume: Whether to go on from the note there, if there is one.

    Attributes:
        counts: What has been read of each source so far.
    """

    def __init__(self, folder: Path, work: Path, *, resume: bool) -> None:
        self._folder, self._note = folder, work / NOTE
        self._paths = {VALIDATION: folder / VALIDATION, ASIDE: work / ASIDE}
        self._files: dict[str, IO[bytes]] = {}
        self._stack = ExitStack()
        self.counts: list[Counts] = []
        self._noted: dict[str, int] = {}
        if resume and self._note.is_file():
            content = json.loads(self._note.read_text(encoding="utf-8"))
            self._noted = content["sizes"]
            self.counts = [Counts(**{**entry, "place": Place(**entry["place"])}) for entry in content["counts"]]

    def __enter__(self) -> Progress:
        for name in (VALIDATION, ASIDE):
            self._open(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _open(self, name: str) -> IO[bytes]:
        if name not in self._files:
            path = self._paths.get(name, self._folder / name)
            path.touch()
            file = self._stack.enter_context(path.open("r+b"))
            file.truncate(self._noted.get(name, 0))
            file.seek(0, os.SEEK_END)
            self._files[name] = file
        return self._files[name]

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each file in bytes."""
        return {**self._noted, **{name: file.tell() for name, file in self._files.items()}}

    def counts_of(self, index: int) -> Counts:
        """Return the counts of a source, to be changed."""
        while len(self.counts) <= index:
            self.counts.append(Counts())
            self._open(source_file(len(self.counts) - 1))
        return self.counts[index]

    def add(self, index: int, encoded: Encoded, name: str) -> None:
        """Append what a piece of a source, called `name`, gave."""
        counts = self.counts_of(index)
        self._open(source_file(index)).write(encoded.train.tobytes())
        self._open(VALIDATION).write(encoded.held_out.tobytes())
        for aside in encoded.aside:
            kind, _, detail = aside.reason.partition(":")
            entry = {"source": name, "where": aside.where, "reason": kind, "text": aside.text or detail.strip()}
            self._open(ASIDE).write(json.dumps(entry).encode() + b"\n")
            counts.aside[kind] = counts.aside.get(kind, 0) + 1
        counts.documents += encoded.documents
        counts.held_out_documents += encoded.held_out_documents
        counts.tokens += len(encoded.train)
        counts.place = encoded.after

    def note(self) -> None:
        """Make sure that what was added is kept, and note it."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        content = {"sizes": self.sizes, "counts": [asdict(entry) for entry in self.counts]}
        unfinished = self._note.with_suffix(".unfinished")
        with unfinished.open("w", encoding="utf-8") as file_of_note:
            json.dump(content, file_of_note)
            file_of_note.flush()
            os.fsync(file_of_note.fileno())
        os.replace(unfinished, self._note)


def write_aside(work: Path, path: Path) -> None:
    """Write the table of documents that were set aside: `source`, `where`, `step`, `reason`, and how each begins."""
    import pyarrow as pa
    import pyarrow.parquet

    schema = pa.schema([(name, pa.string()) for name in _COLUMNS])
    rows: list[dict[str, Any]] = []
    with (
        (work / ASIDE).open(encoding="utf-8") as file,
        pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer,
    ):
        for line in file:
            rows.append({**json.loads(line), "step": STEP})
            if len(rows) >= _AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
