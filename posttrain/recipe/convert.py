"""One scalar of a recipe to the type that the schema asks for; the conversion itself is OmegaConf's."""

from __future__ import annotations

import types
import typing
from dataclasses import make_dataclass
from functools import cache
from typing import Any, Literal, Union

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from posttrain.recipe.origins import Node
from posttrain.recipe.suggest import either

_NAMES: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    dict: "a mapping",
    list: "a list",
}


class Mismatch(Exception):
    """A value is not of the type asked for. The message says what was expected and what was given."""


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the one type itself."""
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def describe_type(hint: Any) -> str:
    """Name a type in the words of a recipe: `a whole number`, `a list of text`, `one of sigmoid, hinge`."""
    names = []
    for choice in alternatives(hint):
        origin, arguments = typing.get_origin(choice), typing.get_args(choice)
        if origin is Literal:
            names.append(("one of " if len(arguments) > 1 else "") + ", ".join(str(value) for value in arguments))
        elif origin is list and arguments[0] in _NAMES:
            names.append("a list of " + _NAMES[arguments[0]].removeprefix("a "))
        else:
            names.append(_NAMES.get(origin or choice, "a mapping"))
    return either([name for name in names if name != "null"])


def describe_value(node: Node) -> str:
    """Show what was given, on one line and without secrets."""
    if isinstance(node.value, dict):
        return "a mapping"
    if isinstance(node.value, list):
        return "a list"
    if node.value is None:
        return "null"
    if node.secret:
        return f"the value of {node.text}"
    shown = repr(node.value) if isinstance(node.value, str) else (node.text or str(node.value))
    return f"{shown} ({_NAMES.get(type(node.value), 'text')})"


def convert_scalar(node: Node, hint: Any) -> Any:
    """Convert a scalar to `str`, `int`, `float`, `bool`, a Literal, None, or a union of them.

    Text that YAML reads as something else keeps its spelling where text is wanted: `language: no` is Norwegian, and
    `revision: 0123` has its zero.

    Raises:
        Mismatch: The value is of another type.
    """
    choices = alternatives(hint)
    if node.value is None and type(None) in choices:
        return None
    if Any in choices:
        return node.value
    for choice in choices:
        try:
            return _convert(node, choice)
        except Mismatch:
            continue
    raise Mismatch(f"must be {describe_type(hint)}, not {describe_value(node)}")


def _convert(node: Node, hint: Any) -> Any:
    value = node.value
    if value is None or isinstance(value, dict | list):
        raise Mismatch
    is_literal = typing.get_origin(hint) is Literal
    if (hint is str or is_literal) and not isinstance(value, str):
        value = node.text if node.text is not None and "${" not in node.text else str(value)
    if is_literal:
        if value not in typing.get_args(hint):
            raise Mismatch
        return value
    if hint is str:
        # OmegaConf would resolve text with `${` in it a second time.
        return value
    if hint not in (int, float, bool) or (isinstance(value, str) and (not value.strip() or "${" in value)):
        raise Mismatch
    if hint is bool and not isinstance(value, bool | str):
        raise Mismatch  # OmegaConf would take any number
    holder = _holder(hint)
    try:
        OmegaConf.update(holder, "value", value)
    except OmegaConfBaseException as error:
        raise Mismatch from error
    return holder.value


@cache
def _holder(hint: Any) -> Any:
    """A structured config of one field, which OmegaConf converts what it is given to."""
    return OmegaConf.structured(make_dataclass("Holder", [("value", hint)]))
