"""Which files an entry of the recipe names, and what identifies them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

from posttrain.assets import is_hub_id, locate
from posttrain.errors import UserError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".arrow")
# What `datasets` writes beside the arrow files of a saved dataset, and `posttrain.data.generate` beside its parts.
_SIDE_FILES = {"dataset_info.json", "dataset_dict.json", "state.json", "done.json", "refused.parquet"}
_SPLIT_NAMES = ("train", "training", "validation", "valid", "val", "dev", "eval", "test", "testing")
_SPLIT = re.compile(rf"({'|'.join(_SPLIT_NAMES)})(?![A-Za-z0-9])")
_CHUNK = 1 << 20


class Entry(Protocol):
    """The part of a recipe entry that says what to read; some also have a `config`."""

    @property
    def path(self) -> str: ...

    @property
    def revision(self) -> str | None: ...

    @property
    def split(self) -> str: ...


@dataclass(frozen=True)
class DataFile:
    """A file to read; `name` is its path below the entry's folder, with slashes, or just its name."""

    path: Path
    name: str


def check_source_exists(entry: Entry) -> list[str]:
    """Return what is wrong with an entry's `path` as far as this machine can tell at once; a hub id passes unseen."""
    if is_hub_id(entry.path):
        return []
    try:
        if getattr(entry, "aligned_files", None) is None:
            find_files(entry)
    except UserError as error:
        return error.problems
    return []


def find_files(entry: Entry) -> list[DataFile]:
    """List the files of a local entry in order of their names.

    In a folder, `config` and `split` choose subfolders of that name where there are such; files named after a split
    (`train-00000-of-00002.parquet`) are taken for that split only.

    Raises:
        UserError: There is no such path, or nothing in it that can be read.
    """
    root = Path(locate(entry.path)).expanduser()
    if root.is_file():
        if not root.name.endswith(SUFFIXES):
            raise UserError(f"{entry.path}: cannot read this kind of file; give one of {', '.join(SUFFIXES)}")
        return [DataFile(root, root.name)]
    if not root.is_dir():
        hint = "" if "/" in entry.path else ", or give a hub id as owner/name"
        raise UserError(f"{entry.path}: there is no such file or folder; correct the path{hint}")
    config = getattr(entry, "config", None)
    if config is not None:
        root = root / config
        if not root.is_dir():
            raise UserError(f"{entry.path}: there is no folder {config!r} in it, which `config` names")
    if (root / entry.split).is_dir():
        root = root / entry.split
    files = sorted(file for file in root.rglob("*") if _is_data(file.relative_to(root)) and file.is_file())
    by_split = {file: match[1] for file in files if (match := _SPLIT.match(file.name))}
    # `train_prefs-00000-of-00001.parquet` is of the split train_prefs, where that is asked for, and else of train.
    by_split |= {
        file: entry.split for file in files if re.match(rf"{re.escape(entry.split)}(?![A-Za-z0-9_])", file.name)
    }
    chosen = [file for file in files if by_split.get(file, entry.split) == entry.split]
    if not files:
        raise UserError(f"{entry.path}: no file in this folder can be read; it needs {', '.join(SUFFIXES)}")
    if not chosen:
        found = ", ".join(sorted(set(by_split.values())))
        raise UserError(f"{entry.path}: has no files of split {entry.split!r}; set `split` to one of {found}")
    return [DataFile(file, file.relative_to(root).as_posix()) for file in chosen]


def _is_data(name: PurePath) -> bool:
    return (
        name.name.endswith(SUFFIXES)
        and name.name not in _SIDE_FILES
        and not any(part.startswith(".") for part in name.parts)
    )


def file_identity(file: DataFile) -> dict[str, Any]:
    """Return a file's name, SHA-256 and size in bytes."""
    digest = hashlib.sha256()
    with file.path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return {"name": file.name, "sha256": digest.hexdigest(), "bytes": file.path.stat().st_size}
