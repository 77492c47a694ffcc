"""SHA-256 of files and folders, remembered so that a large model is read once."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

_CHUNK = 1 << 22  # bytes
_SETTLED_NS = 2_000_000_000  # a file changed less than 2 s ago could change again with the same time stamp
_LARGE = 1 << 30  # bytes, from which hashing takes long enough to say so
_REMEMBERED = 20_000  # entries


def sha256_file(path: Path, *, sync: bool = False) -> str:
    """Return the SHA-256 of a file's content in hex; `sync` also flushes the file to the disk."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        if sync:
            os.fsync(file.fileno())
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def visible_files(folder: Path) -> list[Path]:
    """Return the files under a folder in the order of their relative names, without hidden ones and caches."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        found.extend(Path(parent) / name for name in names if not name.startswith("."))
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader sees the old text or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


def default_store() -> Path:
    """Return where digests are remembered between runs."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "posttrain" / "digests.json"


class Digests:
    """Identities of external files and folders.

    A file that has the real path, size and modification time of one that was read before is taken to be the same.
    The store is a convenience: if it is damaged or cannot be written, files are read again.

    Args:
        store: The JSON file to remember digests in.
        say: Called with a line of text before something large is read.
    """

    def __init__(self, store: Path | None = None, say: Callable[[str], None] | None = None) -> None:
        self._store = store or default_store()
        self._say = say
        self._known = self._read()
        self._new: dict[str, list[Any]] = {}

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self._store.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def of(self, path: Path) -> str:
        """Return `sha256:` and the digest of a file's content, or of a folder's relative names and contents."""
        files = visible_files(path) if path.is_dir() else [path]
        self._announce(path, files)
        if not path.is_dir():
            digest = self._file(path)
        else:
            lines = (f"{self._file(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
            digest = sha256_text("".join(lines))
        self._save()
        return f"sha256:{digest}"

    def _announce(self, path: Path, files: Iterable[Path]) -> None:
        unread = sum(file.stat().st_size for file in files if self._remembered(file) is None)
        if self._say is not None and unread >= _LARGE:
            self._say(f"reading {path} for its digest ({unread / 1e9:.0f} GB, only the first time)")

    def _remembered(self, path: Path) -> str | None:
        stat = path.stat()
        entry = self._known.get(os.path.realpath(path))
        if isinstance(entry, list) and len(entry) == 3 and entry[:2] == [stat.st_size, stat.st_mtime_ns]:
            return str(entry[2])
        return None

    def _file(self, path: Path) -> str:
        if remembered := self._remembered(path):
            return remembered
        before = path.stat()
        digest = sha256_file(path)
        if time.time_ns() - before.st_mtime_ns > _SETTLED_NS:
            entry = [before.st_size, before.st_mtime_ns, digest]
            self._new[os.path.realpath(path)] = self._known[os.path.realpath(path)] = entry
        return digest

    def _save(self) -> None:
        if not self._new:
            return
        merged = {**self._read(), **self._new}
        merged = dict(list(merged.items())[-_REMEMBERED:])
        with suppress(OSError):
            self._store.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._store, json.dumps(merged, indent=1) + "\n")
            self._new = {}
