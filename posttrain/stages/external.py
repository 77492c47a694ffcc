"""What a recipe reads from outside the project's own output: files, folders and repositories of the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from posttrain.assets import BUILTIN, locate

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FILE_SUFFIXES = (
    ".arrow",
    ".csv",
    ".gguf",
    ".gz",
    ".jinja",
    ".json",
    ".jsonl",
    ".md",
    ".parquet",
    ".txt",
    ".yaml",
    ".yml",
    ".zst",
)


@dataclass(frozen=True)
class External:
    """One input from outside.

    Attributes:
        key: Where the recipe names it, `data.sft.0.path`.
        written: The value as the recipe has it.
        path: The file or folder that it stands for, or None for a repository of the hub. The identity of a file is
            its content; that of a repository is its id and revision, which are part of the recipe already.
    """

    key: str
    written: str
    path: Path | None

    def missing(self) -> str | None:
        """Return the problem if this is a path where nothing is."""
        if self.path is None or self.path.exists():
            return None
        return f"{self.key}: there is no file or folder {self.written!r}; correct the path"


def external(key: str, written: str) -> External:
    """Tell a path from a hub id.

    Whatever exists is a path. Of the rest, `name` and `owner/name` without the suffix of a known kind of file are hub
    ids, unless there is a folder `owner` here; anything else is a path to something missing.
    """
    path = Path(locate(written)).expanduser()
    if path.exists() or written.startswith(BUILTIN):
        return External(key, written, path)
    is_name = _HUB_ID.fullmatch(written) and not written.endswith(_FILE_SUFFIXES)
    if is_name and ("/" not in written or not path.parent.exists()):
        return External(key, written, None)
    return External(key, written, path)
