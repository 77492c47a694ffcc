"""What a recipe reads from outside the project's own output: files, folders and repositories of the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from posttrain.assets import is_hub_id, locate


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


def external(key: str, written: str, *, bare: bool = True) -> External:
    """Tell a path from a hub id.

    Args:
        key: Where the recipe names it.
        written: The value.
        bare: Whether `name` without an owner is a hub id, as it is of models and not of data.
    """
    if is_hub_id(written, bare=bare):
        return External(key, written, None)
    return External(key, written, Path(locate(written)).expanduser())
