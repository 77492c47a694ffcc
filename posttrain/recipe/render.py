"""A loaded recipe as YAML again: every default and inherited value filled in, each with where it came from."""

from __future__ import annotations

import json
from typing import Any

from posttrain.recipe.load import LoadedRecipe
from posttrain.recipe.yaml_nodes import read_yaml

_COMMENT_COLUMN = 72  # of the comments, where the values leave room for it


def render_resolved(loaded: LoadedRecipe) -> str:
    """Return the resolved recipe as YAML, with a comment on each line that says where its value was written.

    What came through `${oc.env:...}` is written as that. The text is a recipe itself: loading it gives an equal one.
    """
    lines: list[tuple[str, str]] = []
    _mapping(loaded.resolved(), "", "", loaded, lines)
    return "".join(f"{text:<{_COMMENT_COLUMN}}  # {key}\n" if key else f"{text}\n" for text, key in lines)


def _mapping(values: dict[str, Any], key: str, indent: str, loaded: LoadedRecipe, lines: list[tuple[str, str]]) -> None:
    for name, value in values.items():
        _entry(f"{indent}{_scalar(name)}:", value, f"{key}.{name}" if key else name, indent + "  ", loaded, lines)


def _entry(head: str, value: Any, key: str, indent: str, loaded: LoadedRecipe, lines: list[tuple[str, str]]) -> None:
    """Write `head` (a key or a dash) and the value after it or below it."""
    origin = str(loaded.origins.get(key, ""))
    if isinstance(value, dict) and value:
        lines.append((head, origin))
        _mapping(value, key, indent, loaded, lines)
    elif isinstance(value, list) and value:
        lines.append((head, origin))
        for index, item in enumerate(value):
            _entry(f"{indent}-", item, f"{key}.{index}", indent + "  ", loaded, lines)
    else:
        shown = value if key in loaded.masks else _escaped(value)
        lines.append((f"{head} {_scalar(shown)}", origin))


def _escaped(value: Any) -> Any:
    """Keep text that looks like an interpolation from being one when the recipe is read again."""
    return value.replace("${", "\\${") if isinstance(value, str) else value


def _scalar(value: Any) -> str:
    """Write a scalar in YAML, plainly where it reads back as the same."""
    if isinstance(value, dict | list):
        return json.dumps(value)  # empty
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    text = str(value)
    problems: list[str] = []
    back = read_yaml(f"- {text}", "", problems) if text.isprintable() else None
    plain = back is not None and isinstance(back.value, list) and len(back.value) == 1 and back.value[0].value == text
    return text if plain and not text.endswith(":") and ": " not in text else json.dumps(text, ensure_ascii=False)
