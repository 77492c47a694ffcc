"""Writes that outlive a power cut."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_arrow(table: pa.Table, target: Path) -> None:
    """Write a table as an Arrow stream, metadata of its schema included, that has its name only when it is whole.

    Until then it is under the name with the suffix `.unfinished`, where one that was cut off stays and is written over.
    """
    import pyarrow as pa

    unfinished = target.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, target)
