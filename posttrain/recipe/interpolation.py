"""`${key}` and `${oc.env:VAR}`, resolved by OmegaConf; and which values came from the environment."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from posttrain.recipe.origins import DEFAULT, Node, Path, dotted, to_node, to_plain, walk

_ENVIRONMENT = "oc.env"
_ELSEWHERE = "\0"  # stands for another value of a variable; no environment variable can hold it


class _Failed:
    """A value that could not be resolved, with the reason for a message."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def resolve(tree: Node, problems: list[str]) -> None:
    """Replace every interpolation of the tree by its value, in place.

    A value that came through `${oc.env:...}`, directly or through another key, is marked `secret`; its node keeps the
    interpolation as `text`. An interpolation that fails becomes None and is not checked any further.

    Args:
        tree: The recipe, with its defaults filled in, so that interpolations can refer to them.
        problems: Receives one message for each interpolation that cannot be resolved.
    """
    spelled = {path: node for path, node in walk(tree) if isinstance(node.value, str) and "${" in node.value}
    for path, node in list(spelled.items()):
        try:
            OmegaConf.create({"value": node.value})
        except OmegaConfBaseException as error:
            problems.append(f"{node.origin}: {dotted(path)}: not a valid interpolation: {_first_line(error)}")
            _forget(node)
            del spelled[path]
    if not spelled:
        return

    texts = {path: str(node.value) for path, node in spelled.items()}
    direct = {path for path, text in texts.items() if _ENVIRONMENT in text}
    values = _evaluate(tree, spelled)
    # A value depends on the environment exactly if it changes when what is read from the environment does.
    for path in direct:
        spelled[path].value = _ELSEWHERE
    others = {path: node for path, node in spelled.items() if path not in direct}
    elsewhere = _evaluate(tree, others) if direct else values

    for path, node in spelled.items():
        value = values[path]
        if isinstance(value, _Failed):
            # What a default refers to is missing or wrong itself, and reported there.
            if node.origin != DEFAULT:
                problems.append(f"{node.origin}: {dotted(path)}: {texts[path]}: {value.reason}")
            _forget(node)
            continue
        fresh = to_node(value, node.origin, texts[path], path in direct)
        if path not in direct and value != elsewhere[path]:
            _mark_differences(fresh, to_node(elsewhere[path], node.origin))
        node.value, node.text, node.secret = fresh.value, fresh.text, fresh.secret


def _evaluate(tree: Node, spelled: dict[Path, Node]) -> dict[Path, Any]:
    config = OmegaConf.create(to_plain(tree))
    return {path: _value_at(config, path, tree) for path in spelled}


def _value_at(config: DictConfig, path: Path, tree: Node) -> Any:
    try:
        value: Any = config
        for key in path:
            value = value[key]
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except MissingMandatoryValue as error:
        return _Failed(_first_line(error))
    except OmegaConfBaseException as error:
        return _Failed(_reason(_first_line(error), tree))


def _mark_differences(node: Node, other: Node) -> None:
    """Mark as secret each scalar of `node` that is another in `other`."""
    if isinstance(node.value, dict) and isinstance(other.value, dict):
        pairs = [(child, other.value.get(key)) for key, child in node.value.items()]
    elif isinstance(node.value, list) and isinstance(other.value, list) and len(node.value) == len(other.value):
        pairs = list(zip(node.value, other.value, strict=True))
    else:
        different = to_plain(node) != to_plain(other)
        for _, child in [((), node), *walk(node)]:
            child.secret = child.secret or different
        return
    for child, twin in pairs:
        _mark_differences(child, twin if twin is not None else Node(None, child.origin))


def _forget(node: Node) -> None:
    node.value, node.text, node.secret = UNRESOLVED, node.text or str(node.value), False


class _Unresolved:
    """The value of a node whose problem has been reported, so that nothing more is said about it."""

    def __repr__(self) -> str:
        return "UNRESOLVED"


UNRESOLVED = _Unresolved()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _reason(message: str, tree: Node) -> str:
    variable = re.search(r"Environment variable '(.*?)' not found", message)
    if variable:
        return f"the environment variable {variable[1]} is not set; set it, or give the key a value"
    key = re.search(r"Interpolation key '(.*?)' not found", message)
    if key:
        return f"the recipe has no key {key[1]}"
    return message[0].lower() + message[1:]
