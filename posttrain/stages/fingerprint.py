"""The hash of what determines a stage's output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posttrain.differences import CODE, FILE, INPUT
from posttrain.stages.digest import sha256_text

if TYPE_CHECKING:
    from posttrain.stages.graph import Stage


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
