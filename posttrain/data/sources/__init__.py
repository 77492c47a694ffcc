"""The sources that a recipe can name, by name. Importing this loads nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.data.sources import generic, helpsteer3, oasst
from posttrain.data.sources.base import Record, Source, SourceKind

SOURCES: dict[str, SourceKind] = {kind.name: kind for kind in (generic.KIND, helpsteer3.KIND, oasst.KIND)}


def entry_options(entry: Source | Mapping[str, Any]) -> Source:
    """Return an entry of a recipe as the options of its source; a mapping must have passed the recipe's checks."""
    return entry if isinstance(entry, Source) else SOURCES[entry["source"]].options(**entry)


__all__ = ["SOURCES", "Record", "Source", "SourceKind", "entry_options"]
