"""Reference log-probabilities on disk: shards while they are computed, one file a split in the end.

How the numbers are computed is not known here. A shard is a stretch of the pairs of a split, and is there whole or not
at all; the finished files are read in step with the tokens of the pairs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.durable import write_arrow
from posttrain.errors import UserError
from posttrain.train.dataset import SPLITS, TokenSet

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PAIRS = 128  # of a shard: what each process loses at most when it is killed
CHOSEN, REJECTED = "ref_chosen_logps", "ref_rejected_logps"  # as TRL's collator calls them
METADATA = "reference.json"
CHECKPOINT_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json")
TOKEN_FILES = tuple(f"{split}.arrow" for split in SPLITS)
_MANIFEST = "manifest.json"
_BLOCK = 1 << 22  # bytes


@dataclass(frozen=True)
class Shard:
    """Pairs `start` to `stop` of a split, and the file of their log-probabilities."""

    split: str
    start: int
    stop: int
    target: Path

    def __len__(self) -> int:
        return self.stop - self.start


def list_shards(pairs: Mapping[str, int], work: Path, size: int = PAIRS) -> list[Shard]:
    """Return the shards of all splits, in order.

    Args:
        pairs: The number of pairs of each split.
        work: Where the shards go.
        size: Pairs a shard.
    """
    return [
        Shard(split, start, min(start + size, pairs[split]), work / f"{split}-{start:09}.arrow")
        for split in SPLITS
        for start in range(0, pairs[split], size)
    ]


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("row", pa.int64()), (CHOSEN, pa.float32()), (REJECTED, pa.float32())])


def write_shard(shard: Shard, values: np.ndarray) -> None:
    """Write a shard in one step.

    Args:
        shard: The shard.
        values: Log-probabilities in nats, float32 of shape (pairs, 2): chosen, rejected.
    """
    import numpy as np
    import pyarrow as pa

    assert values.shape == (len(shard), 2), f"{values.shape} values for {len(shard)} pairs"
    rows = np.arange(shard.start, shard.stop)
    columns = [rows, np.ascontiguousarray(values[:, 0]), np.ascontiguousarray(values[:, 1])]
    write_arrow(pa.table(columns, schema=_schema()), shard.target)


def join_shards(shards: Sequence[Shard], folder: Path, determined_by: Mapping[str, Any]) -> None:
    """Join the shards of each split to one file, and write beside them what the values follow from."""
    import pyarrow as pa

    pairs = dict.fromkeys(SPLITS, 0)
    for split in SPLITS:
        tables = [_schema().empty_table()]
        for shard in shards:
            if shard.split == split:
                with pa.memory_map(str(shard.target)) as file:
                    tables.append(pa.ipc.open_stream(file).read_all())
        table = pa.concat_tables(tables).combine_chunks()
        pairs[split] = len(table)
        assert table.column("row").to_pylist() == list(range(len(table))), f"{split}: pairs are missing"
        with pa.ipc.new_stream(str(folder / f"{split}.arrow"), _schema()) as stream:
            stream.write_table(table)  # one batch, so that the bytes do not tell how it was computed
    text = json.dumps({**determined_by, "pairs": pairs}, indent=2, sort_keys=True)
    (folder / METADATA).write_text(text + "\n", encoding="utf-8")


def with_reference(tokens: TokenSet, folder: Path, determined_by: Mapping[str, Any]) -> TokenSet:
    """Return pairs with the columns `ref_chosen_logps` and `ref_rejected_logps`, mapped from a finished folder.

    Args:
        tokens: The pairs.
        folder: What `join_shards` wrote to.
        determined_by: What the values have to follow from.

    Raises:
        UserError: They follow from something else: the message names it.
    """
    from datasets import Dataset, concatenate_datasets

    found = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    expected = {**determined_by, "pairs": {"train": len(tokens.train), "validation": len(tokens.held_out)}}
    if differing := [key for key in expected if found.get(key) != expected[key]]:
        raise UserError(
            f"the reference log-probabilities in {folder} do not belong to this run: "
            + "; ".join(_difference(key, found.get(key), expected[key]) for key in differing)
            + "; compute them again with --force ref-logps"
        )
    columns = {split: Dataset.from_file(str(folder / f"{split}.arrow")).remove_columns("row") for split in SPLITS}
    train, held_out = (
        concatenate_datasets([rows, columns[split]], axis=1)
        for rows, split in zip((tokens.train, tokens.held_out), SPLITS, strict=True)
    )
    return replace(tokens, train=train, held_out=held_out)


def _difference(key: str, found: Any, expected: Any) -> str:
    changed = {
        "checkpoint": "they were computed with another checkpoint than the one that DPO starts from",
        "tokens": "the preference pairs, or their tokens, have changed since",
    }
    return changed.get(key) or f"{key} was {found}, and is {expected}"


def digest_of(folders: Sequence[str | Path], patterns: Sequence[str], revision: str | None = None) -> str:
    """Return one SHA-256, in hex, of the files of some folders that match patterns: of their names and contents.

    Content that a stage's manifest describes, and that was not touched after the manifest was written, is not read
    again: a large checkpoint takes minutes.

    Args:
        folders: Folders, or ids of the hub, which are told apart by name and revision only.
        patterns: `glob` patterns of names.
        revision: The revision of those of the hub.
    """
    lines = []
    for number, folder in enumerate(map(str, folders)):
        if not Path(folder).is_dir():
            lines.append(f"{number} {folder}@{revision}\n")
            continue
        paths = sorted({path for pattern in patterns for path in Path(folder).glob(pattern)})
        known = _described(Path(folder))
        with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter
            digests = pool.map(known, paths)
            lines += [f"{number} {digest}  {path.name}\n" for path, digest in zip(paths, digests, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _described(folder: Path) -> Callable[[Path], str]:
    """Return a function that gives a file's SHA-256: by the folder's manifest where that can be, or else by reading."""
    manifest = folder / _MANIFEST
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        written = manifest.stat().st_mtime_ns
    except (OSError, ValueError, KeyError, TypeError):
        return _sha256

    def known(path: Path) -> str:
        entry, state = files.get(path.name), path.stat()
        if entry is None or entry["bytes"] != state.st_size or state.st_mtime_ns > written:
            return _sha256(path)
        return str(entry["sha256"])

    return known


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
