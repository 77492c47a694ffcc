"""`key=value` arguments laid over a recipe."""

from __future__ import annotations

import re
from collections.abc import Sequence

from posttrain.recipe.origins import COMMAND_LINE, Node, merge
from posttrain.recipe.yaml_nodes import read_yaml

_INDEX = re.compile(r"\[(\d+)\]")


def apply_overrides(tree: Node, overrides: Sequence[str], problems: list[str]) -> Node:
    """Lay each `key=value` over the tree, in order, as OmegaConf's dotlists do.

    A key is dotted, with indices for lists: `data.sft.0.max_rows` (or `data.sft[0].max_rows`). A section that is
    absent or `null` is created on the way. A value is YAML: a mapping merges, a list replaces, `null` removes.

    Args:
        tree: The recipe; changed in place where an override reaches into it.
        problems: Receives one message for each override that cannot be applied.

    Returns:
        The tree with the overrides in it.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        path = _INDEX.sub(r".\1", key.strip()).split(".")
        if not equals or not all(path):
            problems.append(
                f"{COMMAND_LINE}: {override}: not an override; write key=value, such as sft.learning_rate=1e-5"
            )
            continue
        found: list[str] = []
        value = read_yaml(text, f"{COMMAND_LINE}: {key}", found, lines=False)
        if value is None or found:
            problems.extend(found)
            continue
        problem = _set(tree, path, _from_command_line(value))
        if problem:
            problems.append(f"{COMMAND_LINE}: {key}: {problem}")
    return tree


def _from_command_line(node: Node) -> Node:
    if isinstance(node.value, dict):
        return Node({key: _from_command_line(child) for key, child in node.value.items()}, COMMAND_LINE)
    if isinstance(node.value, list):
        return Node([_from_command_line(child) for child in node.value], COMMAND_LINE)
    return Node(node.value, COMMAND_LINE, node.text)


def _set(tree: Node, path: list[str], value: Node) -> str | None:
    """Put a value at a path; return what is wrong where that cannot be done."""
    here = tree
    for depth, key in enumerate(path):
        at = ".".join(path[:depth])
        last = depth == len(path) - 1
        if isinstance(here.value, list):
            count = len(here.value)
            if not key.isdecimal() or int(key) >= count:
                known = {0: "it is empty", 1: "its one entry is 0"}.get(count, f"its entries are 0 to {count - 1}")
                return f"{at} is a list, and {key!r} is not one of its entries; {known}"
            index = int(key)
            if last:
                here.value[index] = merge(here.value[index], value)
            here = here.value[index]
        elif here.value is None or isinstance(here.value, dict):
            if key.isdecimal():
                return f"there is no list at {at}" if at else "a key cannot be a number"
            if here.value is None:
                here.value, here.origin, here.text = {}, COMMAND_LINE, None
            if last:
                here.value[key] = merge(here.value[key], value) if key in here.value else value
            here = here.value.setdefault(key, Node(None, COMMAND_LINE))
        else:
            return f"{at} is a single value ({here.text or here.value}), so it has no key {key}"
    return None
