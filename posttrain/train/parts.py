"""The parts in which a set is tokenised: each by any process, once, and whole or not there.

A part is one row group of a set's parquet file. Its tokens are an Arrow stream whose schema carries the counts and the
refusals, so that a part that has its name has everything.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.chat.encode import Encoder
from posttrain.durable import write_arrow
from posttrain.parallel import ordered
from posttrain.train.dataset import SPLITS, Tally
from posttrain.train.tokens import Encoded, encode_preference, encode_sft

if TYPE_CHECKING:
    import pyarrow as pa

_READ = {
    "sft": ("id", "source", "messages"),
    "preference": ("id", "source", "prompt", "chosen", "rejected"),
}
# What a process needs; loaded once and shared, where the system can.
_PRELOAD = (
    "numpy",
    "pyarrow.parquet",
    "tokenizers",
    "transformers.utils.chat_template_utils",
    "posttrain.train.parts",
)
_FEW = 3  # parts; to start processes for fewer takes longer than to encode them
_COUNTS = b"posttrain"


@dataclass(frozen=True)
class Part:
    """A row group of a set, and where its tokens go."""

    source: Path
    group: int
    target: Path


@dataclass(frozen=True)
class Settings:
    """How rows are encoded: `kind` is `sft` or `preference`, and `loss_on` is of no account for the latter."""

    kind: str
    max_length: int
    loss_on: str = "assistant"

    def encode(self, rows: Sequence[dict[str, Any]], encoder: Encoder) -> Encoded:
        """Encode rows with these settings."""
        if self.kind == "sft":
            return encode_sft(rows, encoder, loss_on=self.loss_on, max_length=self.max_length)
        return encode_preference(rows, encoder, max_length=self.max_length)


_begun: tuple[Settings, Encoder] | None = None  # of this process


def _begin(settings: Settings, encoder: Encoder) -> None:
    global _begun
    if multiprocessing.parent_process() is not None:  # the processes share the cores already
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        gc.freeze()  # or each collection would go through all that was imported
    _begun = settings, encoder


def list_parts(data: Path, work: Path) -> dict[str, list[Part]]:
    """Return the parts of each split of a set, in order.

    Args:
        data: The folder of the set, with a parquet file for each of `SPLITS`.
        work: Where the parts go.
    """
    import pyarrow.parquet

    found = {}
    for split in SPLITS:
        path = data / f"{split}.parquet"
        with pyarrow.parquet.ParquetFile(path) as file:
            groups = file.num_row_groups
        found[split] = [Part(path, group, work / f"{split}-{group:06}.arrow") for group in range(groups)]
    return found


def encode_parts(
    parts: Sequence[Part], settings: Settings, encoder: Encoder, num_proc: int
) -> Generator[Part, None, None]:
    """Encode the parts that are not there yet, and yield all of them in order as they are there."""
    missing = [part for part in parts if not part.target.exists()]
    done: Any = ordered(
        missing,
        _encode_part,
        num_proc if len(missing) >= _FEW else 1,
        start=_begin,
        arguments=(settings, encoder),
        preload=_PRELOAD,
    )
    waited_for = {part.target for part in missing}
    with ExitStack() as stack:
        stack.callback(done.close)
        for part in parts:
            if part.target in waited_for:
                next(done)
            yield part


def read_rows(part: Part, kind: str) -> list[dict[str, Any]]:
    """Read the rows of a part, with the columns that encoding a set of this kind needs."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(part.source) as file:
        table = file.read_row_group(part.group, columns=list(_READ[kind]), use_threads=False)
    columns = {name: _plain(table.column(name).combine_chunks()) for name in table.column_names}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _plain(array: pa.Array) -> list[Any]:
    """Return what `to_pylist` does of texts and messages, several times as fast."""
    import pyarrow as pa

    if not pa.types.is_list(array.type):
        return array.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
    turns = array.flatten()
    fields = [turns.field(name).to_numpy(zero_copy_only=False).tolist() for name in ("role", "content")]
    messages = [{"role": role, "content": content} for role, content in zip(*fields, strict=True)]
    ends = array.value_lengths().to_numpy().cumsum().tolist()
    return [messages[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _encode_part(part: Part) -> None:
    assert _begun is not None
    settings, encoder = _begun
    encoded = settings.encode(read_rows(part, settings.kind), encoder)
    counts = {"tally": encoded.tally.to_json(), "refused": encoded.refused}
    metadata = {_COUNTS: json.dumps(counts, sort_keys=True).encode()}
    write_arrow(encoded.table.replace_schema_metadata(metadata), part.target)


def read_part(part: Part) -> Encoded:
    """Map a part that is there."""
    import pyarrow as pa

    with pa.memory_map(str(part.target)) as file:
        table = pa.ipc.open_stream(file).read_all()
    counts = json.loads(table.schema.metadata[_COUNTS])
    return Encoded(table.replace_schema_metadata(None), Tally.from_json(counts["tally"]), counts["refused"])
