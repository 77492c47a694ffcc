"""What has been computed already, in a file to which each finished batch is added: nothing is computed twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Kept:
    """Results by key, in lines of JSON that outlive the process. A line that a kill cut off is taken out.

    Args:
        path: The file, or None to keep nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        if path is not None and path.is_file():
            self._cut_to_whole_lines(path)
            # Not `splitlines`, for which a U+2028 inside an answer would end the line.
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                record = json.loads(line)
                self._known[record["key"]] = record["value"]

    def get(self, key: str) -> Any | None:
        """Return what was kept under a key, or None."""
        return self._known.get(key)

    def add(self, key: str, value: Any) -> Any:
        """Keep a plain value under a key, and return it as it will be read again."""
        text = json.dumps({"key": key, "value": value}, ensure_ascii=False)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
        self._known[key] = json.loads(text)["value"]
        return self._known[key]

    @staticmethod
    def _cut_to_whole_lines(path: Path) -> None:
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)


def key_of(parts: Sequence[Any]) -> str:
    """Return the key of what plain values determine: the SHA-256 of their JSON."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
