"""Pieces of text from a dataset of the hub, streamed: nothing of it is kept beyond the piece that is read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.recipe.schema import TextSource
from posttrain.train.text_files import Opened, Pieces, Place
from posttrain.train.text_tables import AT_ONCE, gather, require_column

if TYPE_CHECKING:
    from datasets import IterableDataset


def open_hub(source: TextSource, seed: int, revision: str | None) -> Opened:
    """Open a dataset of the hub; each of its shards is what a file of a folder is.

    Args:
        source: The entry of the recipe.
        seed: Draws the order of the shards.
        revision: The commit to read; by default the one that the entry's revision stands for now.

    Raises:
        UserError: If the hub has no such dataset, or it may not be read; while reading, if the stream breaks off.
    """
    dataset, commit = load_stream(source, revision)
    shards = int(dataset.num_shards)
    order = sorted(range(shards), key=lambda shard: hashlib.sha256(f"{seed}\0shard\0{shard}".encode()).digest())

    def pieces(start: Place) -> Pieces:
        for number in range(start.file, shards):
            offset = start.offset if number == start.file else 0
            shard = dataset.shard(num_shards=shards, index=order[number])
            name = f"{source.path} shard {order[number]}"
            arrays = _arrays(shard.skip(offset) if offset else shard, source, name)
            yield from gather(arrays, name, number, offset)

    return Opened(pieces, {"path": source.path, "revision": commit, "files": []})


def load_stream(source: TextSource, revision: str | None) -> tuple[IterableDataset, str | None]:
    """Return a dataset of the hub to be streamed, and the commit it is of."""
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        asked: dict[str, Any] = {"revision": revision or source.revision}
        builder = datasets.load_dataset_builder(source.path, source.config, **asked)
        if hasattr(builder.config, "columns"):
            # Of Parquet one column can be fetched alone; files that differ in the others are then no hindrance either.
            builder = datasets.load_dataset_builder(source.path, source.config, columns=[source.column], **asked)
        dataset: Any = builder.as_streaming_dataset(split=source.split)
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, DatasetsError) as error:
        raise UserError(
            f"cpt.text: {source.path} is no local path, and as an id of the hub it cannot be streamed: "
            f"{_first_line(error)}; check the id, `config`, `split`, `revision`, the network and your access"
        ) from error
    commit = re.search(r"\b[0-9a-f]{40}\b", str(builder.base_path))  # hf://datasets/OWNER/NAME@COMMIT
    return dataset, commit[0] if commit else revision or source.revision


def _arrays(shard: Any, source: TextSource, name: str) -> Iterator[Any]:
    checked = False
    try:
        for table in shard.with_format("arrow").iter(AT_ONCE):
            if not checked:
                require_column(table.column_names, source.column, name)
                checked = True
            yield table.column(source.column).combine_chunks()
    except UserError:
        raise
    except Exception as error:  # of the network, of a dozen libraries
        if "FieldRef" in str(error):  # pyarrow's name for a column
            raise UserError(f"cpt.text: the rows of {name} have no column {source.column!r}") from error
        raise UserError(
            f"cpt.text: the stream of {name} broke off: {_first_line(error)}; the same command goes on from there"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
