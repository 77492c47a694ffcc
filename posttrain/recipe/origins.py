"""A recipe as a tree whose every key remembers where it was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a file and its line (counted from 1), the command line, or nowhere (a default)."""

    where: str
    line: int | None = None

    def __str__(self) -> str:
        return self.where if self.line is None else f"{self.where}:{self.line}"


COMMAND_LINE = Origin("command line")
DEFAULT = Origin("default")


@dataclass
class Node:
    """One value of a recipe.

    Args:
        value: A dict of nodes, a list of nodes, or a scalar.
        origin: Where the value was written.
        text: The scalar as it was spelled, where it was spelled at all: `no` stays `no` where text is wanted, and an
            interpolation keeps its `${...}` after it has been resolved.
        secret: Whether the value came through `${oc.env:...}`, so that only `text` may be shown.
    """

    value: Any
    origin: Origin
    text: str | None = None
    secret: bool = False


Path = tuple[str | int, ...]


def dotted(path: Path) -> str:
    """Write a path the way that it is written on the command line: `data.sft.0.path`."""
    return ".".join(str(part) for part in path)


def to_node(value: Any, origin: Origin, text: str | None = None, secret: bool = False) -> Node:
    """Wrap a plain value, with one origin for all that it contains."""
    if isinstance(value, dict):
        value = {str(key): to_node(child, origin, text, secret) for key, child in value.items()}
    elif isinstance(value, list | tuple):
        value = [to_node(child, origin, text, secret) for child in value]
    return Node(value, origin, text, secret)


def to_plain(node: Node) -> Any:
    """Return the values alone."""
    if isinstance(node.value, dict):
        return {key: to_plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [to_plain(child) for child in node.value]
    return node.value


def walk(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Yield every node below `node` with its path, parents first, in the order of the recipe."""
    if isinstance(node.value, dict):
        children: Iterator[tuple[str | int, Node]] = iter(list(node.value.items()))
    elif isinstance(node.value, list):
        children = iter(list(enumerate(node.value)))
    else:
        return
    for key, child in children:
        yield (*path, key), child
        yield from walk(child, (*path, key))


def merge(below: Node, above: Node) -> Node:
    """Lay one tree over another: mappings merge key by key, anything else (a list, a `null`) replaces."""
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)):
        return above
    merged = dict(below.value)
    for key, child in above.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, above.origin)
