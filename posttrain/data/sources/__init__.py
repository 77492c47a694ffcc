"""The sources that a recipe can name, by name. Importing this loads nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.data.sources import (
    avoin_avustaja,
    europarl,
    generated,
    generic,
    helpsteer3,
    magpie,
    oasst,
    tulu3,
    ultrafeedback,
)
from posttrain.data.sources.base import Record, Source, SourceKind

SOURCES: dict[str, SourceKind] = {
    module.KIND.name: module.KIND
    for module in (avoin_avustaja, europarl, generated, generic, helpsteer3, magpie, oasst, tulu3, ultrafeedback)
}


def entry_options(entry: Source | Mapping[str, Any]) -> Source:
    """Return an entry of a recipe as the options of its source; a mapping must have passed the recipe's checks."""
    return entry if isinstance(entry, Source) else SOURCES[entry["source"]].options(**entry)


__all__ = ["SOURCES", "Record", "Source", "SourceKind", "entry_options"]
