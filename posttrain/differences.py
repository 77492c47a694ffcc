"""What differs between two lists of what something was made from: parts of fingerprints, and those of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

FILE, INPUT, CODE = "file ", "input ", "code "  # how the names of parts begin that are no keys of the recipe


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
