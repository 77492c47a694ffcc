"""The hash of what determines a stage's output, and what differs between two of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posttrain.stages.digest import sha256_text

if TYPE_CHECKING:
    from posttrain.stages.graph import Stage

FILE, INPUT, CODE = "file ", "input ", "code "


@dataclass(frozen=True)
class Fingerprint:
    """A fingerprint and what it was made of.

    Attributes:
        value: SHA-256 over `parts`, in hex.
        parts: Canonical JSON of each recipe value by its dotted key; `file KEY`: digest of the content that the
            recipe names at KEY; `input STAGE`: that stage's fingerprint; `code STAGE`: version of its code.
    """

    value: str
    parts: dict[str, str]


def canonical(value: Any) -> str:
    """Return one text for equal plain values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def flatten(value: Any, key: str = "") -> dict[str, str]:
    """Return the leaves of nested plain values by dotted key. None is left out: it means the same as no key."""
    if isinstance(value, Mapping):
        children = [(str(name), child) for name, child in value.items()]
    elif isinstance(value, (list, tuple)):
        children = [(str(index), child) for index, child in enumerate(value)]
    else:
        return {} if value is None else {key: canonical(value)}
    if not children:
        return {key: canonical(value)} if key else {}
    leaves: dict[str, str] = {}
    for name, child in children:
        leaves.update(flatten(child, f"{key}.{name}" if key else name))
    return leaves


def hashed_where_masked(value: Any, masked: Any) -> Any:
    """Return plain values with a hash in place of each that another copy of them masks."""
    if isinstance(value, Mapping) and isinstance(masked, Mapping):
        return {key: hashed_where_masked(child, masked[key]) for key, child in value.items()}
    if isinstance(value, (list, tuple)) and isinstance(masked, (list, tuple)):
        return [hashed_where_masked(child, other) for child, other in zip(value, masked, strict=True)]
    return value if value == masked else f"sha256:{sha256_text(canonical(value))}"


def fingerprint(
    stage: Stage, resolved: Mapping[str, Any], inputs: Mapping[str, str], digests: Mapping[str, str]
) -> Fingerprint:
    """Return a stage's fingerprint.

    Args:
        stage: The stage.
        resolved: The whole recipe as plain values.
        inputs: Fingerprints of the stages it reads, by name.
        digests: Digests of the files and folders it reads, by the dotted key that names them. Each stands in for the
            path, so that the same content in another place is the same input.
    """
    parts = {key: value for key, value in flatten(stage.part(resolved)).items() if key not in digests}
    parts.update({f"{FILE}{key}": digest for key, digest in digests.items()})
    parts.update({f"{INPUT}{name}": inputs[name] for name in stage.inputs})
    parts[f"{CODE}{stage.name}"] = str(stage.version)
    parts = dict(sorted(parts.items()))
    return Fingerprint(sha256_text(canonical(parts)), parts)


def changed_parts(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return the names of the parts that differ, those of the recipe first."""
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return sorted(changed, key=lambda key: (key.startswith(INPUT), key.startswith(CODE), key.startswith(FILE), key))


def describe(key: str, old: Mapping[str, str], new: Mapping[str, str], written: Mapping[str, str]) -> str:
    """Say in a few words how a part differs; `written` gives the recipe's text for the key of a file."""
    if key.startswith(FILE):
        name = key.removeprefix(FILE)
        if key in old and key in new:
            return f"{name}: the content of {written.get(name, name)} changed"
        return f"{name}: {'is a local file now' if key in new else 'was a local file'}"
    if key.startswith(INPUT):
        name = key.removeprefix(INPUT)
        if key in old and key in new:
            return f"{name}, which it is built from, changed"
        return f"{name} is {'now' if key in new else 'no longer'} what it is built from"
    if key.startswith(CODE):
        return f"{key.removeprefix(CODE)}: posttrain's own code changed (version {old.get(key)}, now {new.get(key)})"
    return f"{key}: {_value('was', old.get(key))}, {_value('is', new.get(key))}"


def _value(verb: str, value: str | None) -> str:
    if value is None:
        return f"{verb} not set"
    return f"{verb} {value if len(value) <= 60 else value[:57] + '...'}"
