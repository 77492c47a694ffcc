"""A manifest in two parts: what every build of the same things has, and what is of one build alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# What a build reports of its speed and memory differs from build to build.
_VOLATILE_METRIC = re.compile(r"(^|[/_])seconds$|_per_second$|peak_memory")
# So does what the generate stage asked for in this run, which depends on what is in its store already.
_ASKED = re.compile(r"/(requests|answers|from_store|prompt_tokens|completion_tokens|retries|failures)(/|$)")
_VOLATILE = ("code", "hardware", "times")
_CUT_PATH = re.compile(r"(\.\.\./[^\n]*)#[0-9a-f]{8}")


def split(manifest: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the stable and the volatile part of a stage's manifest.

    The stable part has all that fingerprints and digests are made of, so the chain can be checked by it alone. The
    volatile part has the commit, the hardware, the times, and the files and figures that no two builds share.
    """
    stable = {key: value for key, value in manifest.items() if key not in _VOLATILE}
    volatile: dict[str, Any] = {key: manifest.get(key) for key in _VOLATILE}
    files, metrics = manifest["files"], manifest["metrics"]
    stable["files"] = {name: entry for name, entry in files.items() if not entry.get("volatile")}
    volatile["files"] = {name: entry for name, entry in files.items() if entry.get("volatile")}
    of_one_build = {
        key
        for key in metrics
        if _VOLATILE_METRIC.search(key) or (manifest["stage"] == "generate" and _ASKED.search(key))
    }
    stable["metrics"] = {key: value for key, value in metrics.items() if key not in of_one_build}
    volatile["metrics"] = {key: value for key, value in metrics.items() if key in of_one_build}
    for key in ("recipe", "sources"):
        stable[key] = placeless(stable[key])
    return stable, volatile


def placeless(value: Any) -> Any:
    """Return plain values in which a path that was cut to its last name has lost the hash of the rest too.

    The hash tells two paths of one name apart on one machine; on another the same file has another one.
    """
    if isinstance(value, Mapping):
        return {key: placeless(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [placeless(child) for child in value]
    if isinstance(value, str) and (match := _CUT_PATH.fullmatch(value)):
        return match[1]
    return value
