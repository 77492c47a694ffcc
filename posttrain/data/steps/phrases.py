"""The lists of words that steps look for, kept in `data/phrases/` where anyone can read and correct them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from posttrain.assets import asset_folder

_APOSTROPHES = "’‘ʼ＇´`"


@cache
def phrases(name: str) -> dict[str, Any]:
    """Return the lists in `data/phrases/<name>.yaml`."""
    import yaml

    content: dict[str, Any] = yaml.safe_load((asset_folder("data") / "phrases" / f"{name}.yaml").read_text("utf-8"))
    return content


def plain_apostrophes(text: str) -> str:
    """Write every sign used as an apostrophe as `'`."""
    for sign in _APOSTROPHES:  # faster than str.translate
        text = text.replace(sign, "'")
    return text


def any_of(texts: Iterable[str]) -> str:
    """Return a regular expression for any of these texts, the longest first; a blank stands for any blanks."""
    longest_first = sorted(set(texts), key=lambda text: (-len(text), text))
    return "(?:" + "|".join(r"\s+".join(map(re.escape, text.split())) for text in longest_first) + ")"
