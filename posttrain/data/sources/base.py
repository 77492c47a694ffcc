"""What every source shares: the options of a recipe entry, and what a converter gives back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Source:
    """The keys of any entry under `data.sft` or `data.preference`.

    `path` is a hub id, a file, a folder, or `builtin:` and a path inside the package's `data/`. At most one of
    `fraction`, `max_rows` and `repeat` says how many of its rows go into the mixture. `name` tells two entries of
    one source apart in reports.
    """

    source: str
    path: str
    name: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str = "train"
    language: str | list[str] | None = None
    license: str | None = None
    fraction: float | None = None
    max_rows: int | None = None
    repeat: float | None = None
