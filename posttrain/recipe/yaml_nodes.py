"""YAML to a tree of nodes: every key with its line, every duplicate key an error."""

from __future__ import annotations

import re
from typing import Any

import yaml

from posttrain.recipe.origins import Node, Origin

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.1 that reads scalars as OmegaConf's own loader does: `5e-6` is a number and a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TAG + "timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 asks for a dot and a signed exponent in a float; these spellings go without one or the other.
_Loader.add_implicit_resolver(
    _TAG + "float", re.compile(r"[-+]?\d+(_\d+)*(\.[\d_]*)?[eE][-+]?\d+\Z", re.ASCII), list("-+0123456789")
)


class _Reader:
    """One document on its way from YAML nodes to recipe nodes."""

    def __init__(self, text: str, where: str, lines: bool, problems: list[str]) -> None:
        self.loader = _Loader(text)
        self.where = where
        self.lines = lines
        self.problems = problems
        self.open: list[yaml.Node] = []  # the nodes being read, to find an alias inside its own anchor

    def origin(self, node: yaml.Node) -> Origin:
        return Origin(self.where, node.start_mark.line + 1 if self.lines else None)

    def read(self, node: yaml.Node, origin: Origin) -> Node:
        if node in self.open:
            raise yaml.constructor.ConstructorError(None, None, "an alias inside its own anchor", node.start_mark)
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return Node(self.mapping(node), origin)
            if isinstance(node, yaml.SequenceNode):
                return Node([self.read(child, self.origin(child)) for child in node.value], origin)
            value: Any = self.loader.construct_object(node)
            return Node(value, origin, text=node.value)
        finally:
            self.open.pop()

    def mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        first: dict[str, Origin] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            here = self.origin(key)
            if key.tag != _TAG + "merge" and key.value in first:
                earlier = f", first on line {first[key.value].line}" if self.lines else ""
                self.problems.append(f"{here}: {key.value}: this key is given twice{earlier}; keep one of them")
            first.setdefault(key.value, here)
        self.loader.flatten_mapping(node)  # `<<` merge keys
        # The key's own spelling is the key: YAML 1.1 would read `on` as true and `8` as a number.
        return {key.value: self.read(value, self.origin(key)) for key, value in node.value}


def read_yaml(text: str, where: str, problems: list[str], lines: bool = True) -> Node | None:
    """Read one YAML document.

    Args:
        text: The document.
        where: What to call it in origins and problems, the name of a file for instance.
        problems: Receives one message for each thing that is wrong: syntax, duplicate keys.
        lines: Whether origins say the line.

    Returns:
        The tree; a `Node` of None for an empty document; None where the document cannot be read.
    """
    try:
        reader = _Reader(text, where, lines, problems)
        root = reader.loader.get_single_node()
        if root is None:
            return Node(None, Origin(where))
        return reader.read(root, reader.origin(root))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        origin = Origin(where, mark.line + 1 if mark is not None and lines else None)
        said = ", ".join(part for part in (error.context, error.problem) if part)
        problems.append(f"{origin}: not valid YAML: {said}")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: what the tags promise and the scalar does not hold, such as `!!int x`.
        problems.append(f"{where}: not valid YAML: {str(error).splitlines()[0]}")
    return None
