"""Reading files that someone else wrote: never more than is sensible, and never as anything but text."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from posttrain.errors import UserError

TEXT = 10 << 20  # bytes; cards, configurations, manifests, lists of digests
TOKENIZER = 200 << 20  # bytes; the largest tokenizer.json there are have some 35 MB


def size_problem(path: Path, shown: str, most: int = TEXT) -> str | None:
    """Say that a file is no regular one, or larger than it can sensibly be."""
    try:
        found = os.lstat(path)
    except OSError as error:
        return f"{shown}: cannot be read: {error.strerror}"
    if stat.S_ISLNK(found.st_mode):
        return f"{shown}: is a link, and a release holds files of its own (hf download NAME --local-dir FOLDER)"
    if not stat.S_ISREG(found.st_mode):
        return f"{shown}: is not a regular file"
    if found.st_size > most:
        return (
            f"{shown}: has {found.st_size / 1e6:,.0f} MB, and no such file needs more than {most / 1e6:,.0f} MB; "
            "it is not read"
        )
    return None


def read_text(path: Path, shown: str, most: int = TEXT) -> str:
    """Return the text of a file.

    Args:
        path: The file.
        shown: How messages call it.
        most: Bytes beyond which it is refused unread.

    Raises:
        UserError: It is larger, no regular file, not there, or not UTF-8.
    """
    if problem := size_problem(path, shown, most):
        raise UserError(problem)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{shown}: cannot be read: {reason}") from error


def read_json(path: Path, shown: str, most: int = TEXT) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        UserError: As for `read_text`, or it is not a JSON object.
    """
    text = read_text(path, shown, most)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{shown}: holds no JSON object")
    return content
