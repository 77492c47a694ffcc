"""Values without the paths of the machine they came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.stages.digest import sha256_text


def portable(value: Any) -> Any:
    """Return plain values with each absolute path cut to its last name.

    A few digits of the whole path's SHA-256 follow, so that two paths of one name stay apart. A single word after a
    slash, such as `/think`, is a path only if it exists.
    """
    if isinstance(value, Mapping):
        return {key: portable(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(child) for child in value]
    if isinstance(value, str) and _is_machine_path(value):
        return f".../{Path(value).name}#{sha256_text(value)[:8]}"
    return value


def _is_machine_path(text: str) -> bool:
    if not text.startswith(("/", "~/")) or "\n" in text or len(text) > 4096:
        return False
    return text.rstrip("/").count("/") > 1 or text.startswith("~/") or os.path.exists(text)
