"""Names that become folders, repositories, branches and files: told apart from those that would lead elsewhere."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

LONGEST = 96  # characters of a repository's name on the hub
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SUFFIXES = {"base": "-Base", "sft": "-SFT", "instruct": "-Instruct"}


def name_problem(name: str, *, repository: bool = False) -> str | None:
    """Say why a text cannot name a folder or a branch, or a repository; None if it can."""
    shown = ascii(name if len(name) <= 60 else f"{name[:57]}...")
    if ".." in name or not _WORD.fullmatch(name):
        return (
            f"{shown} is no name: letters, digits, '.', '_' and '-' may be in it, it begins with a letter or digit, "
            "and '..' is not in it"
        )
    if len(name) > LONGEST or name.endswith((".git", ".lock", ".ipynb", ".", "-")):
        return f"{shown} is no name: at most {LONGEST} characters, and not .git, .lock, .ipynb, '.' or '-' at the end"
    if repository and "--" in name:
        return f"{shown} is no name: the hub takes no '--' in that of a repository or its owner"
    return None


def file_problem(name: str) -> str | None:
    """Say why a text cannot be the relative name of a file in a release; None if it can."""
    path = PurePosixPath(name)
    odd = any(unicodedata.category(letter).startswith("C") for letter in name)
    if not name or odd or "\\" in name or path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
        return f"{name[:80]!a} is no relative name of a file in the folder"
    return None


def repository_name(family: str, kind: str, *, of: str | None = None) -> str:
    """Return what a checkpoint's repository is called, without the organisation.

    Args:
        family: The recipe's `release.name`.
        kind: `base`, `sft`, `instruct` or `variant`.
        of: For a variant, the kind of the checkpoint it was made from; `model` where that is no stage's.
    """
    if kind != "variant":
        return family + _SUFFIXES[kind]
    return f"{family}{_SUFFIXES.get(of or '', '')}-GPTQ"
