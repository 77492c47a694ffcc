"""Rows of a task: from a file, a folder, the package, or the hub."""

from __future__ import annotations

from typing import Any

from posttrain.assets import is_hub_id
from posttrain.errors import UserError
from posttrain.evaluate.kinds.base import Source


def read_rows(
    task: str,
    source: Source,
    *,
    columns: tuple[str, ...] = (),
    most: int | None = None,
    data_files: dict[str, str] | None = None,
    seen: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Read the rows of a task.

    Args:
        task: Its name, for messages.
        source: Where they are.
        columns: What each row must have.
        most: How many to read at most.
        data_files: Patterns of a hub repository's files by split, where it has no configuration for them.
        seen: To which is added what identifies the source: files by SHA-256, or the hub's commit.

    Raises:
        UserError: There is nothing to read, or a row lacks a column; every such row of the first ten is named.
    """
    from posttrain.data.read import Unreadable, read_source

    provenance: dict[str, Any] = {"path": source.path, "revision": source.revision, "files": []}
    try:
        if data_files is not None and is_hub_id(source.path):
            rows = _by_pattern(source, data_files, most)
        else:
            rows = []
            reading = read_source(source)
            provenance = reading.provenance
            for item in reading.items:
                if isinstance(item, Unreadable):
                    raise UserError(f"{source.path}: {item.reason}; correct or remove it")
                rows.append(item)
                if most is not None and len(rows) == most:
                    break
    except UserError as error:
        raise UserError([f"eval: {task}: {problem}" for problem in error.problems]) from error
    if seen is not None:
        seen.append({"task": task, "split": source.split, **provenance})
    if not rows:
        raise UserError(f"eval: {task}: {source.path} has no rows; correct path, config or split")
    lacking = [
        f"eval: {task}: row {number} of {source.path} has no column {column!r} (it has {', '.join(sorted(row))})"
        for number, row in enumerate(rows, start=1)
        for column in columns
        if row.get(column) is None
    ]
    if lacking:
        raise UserError(lacking[:10])
    return rows


def _by_pattern(source: Source, data_files: dict[str, str], most: int | None) -> list[dict[str, Any]]:
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = datasets.load_dataset(source.path, data_files=data_files, split=source.split, revision=source.revision)
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, DatasetsError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{source.path}: as an id of the hub it cannot be read: {said}; check the network and your access, or "
            "download it and give the folder as path"
        ) from error
    return [dict(row) for row in (found if most is None else found.select(range(min(most, len(found)))))]
