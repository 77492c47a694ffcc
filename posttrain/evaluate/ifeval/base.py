"""A verifier, and the values that its keyword arguments may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.data.languages import language_code
from posttrain.data.rows import UNKNOWN_LANGUAGE

LESS_THAN = "less than"
AT_LEAST = "at least"


class BadValue(ValueError):
    """A keyword argument is not what its verifier takes; the message says what it should be."""


Parameter = Callable[[Any], Any]
"""Returns a value as the verifier takes it; raises `BadValue`."""


@dataclass(frozen=True)
class Verifier:
    """One kind of instruction.

    Attributes:
        check: Called with a response that is not blank, the rules of the prompt's language, and the instruction's
            arguments by name; returns whether the response follows the instruction.
        parameters: Each argument's name, all of them required, and what its value may be.
        needs_language: Whether `check` identifies languages.
    """

    check: Callable[..., bool]
    parameters: Mapping[str, Parameter]
    needs_language: bool = False


def compare(count: int, relation: str, threshold: int) -> bool:
    """Tell whether a count stands in a relation, `less than` or `at least`, to a threshold."""
    return count < threshold if relation == LESS_THAN else count >= threshold


def positive(value: Any) -> int:
    """Take a whole number from 1 on; tables with missing values hold it as a float, `3.0`."""
    number = None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    if number is None or not number.is_integer() or number < 1:
        raise BadValue("a whole number from 1 on")
    return int(value)


def relation(value: Any) -> str:
    """Take `less than` or `at least`, in English for prompts in any language."""
    if value not in (LESS_THAN, AT_LEAST):
        raise BadValue(f"`{LESS_THAN}` or `{AT_LEAST}`")
    return str(value)


def text(value: Any) -> str:
    """Take text that is not blank, without the white space around it."""
    if not isinstance(value, str) or not value.strip():
        raise BadValue("text")
    return value.strip()


def word(value: Any) -> str:
    """Take a single word."""
    found = text(value)
    if len(found.split()) > 1:
        raise BadValue("one word")
    return found


def character(value: Any) -> str:
    """Take a single character."""
    found = text(value)
    if len(found) != 1:
        raise BadValue("one character")
    return found


def texts(value: Any) -> tuple[str, ...]:
    """Take a list of texts with at least one in it."""
    if not isinstance(value, list | tuple) or not value:
        raise BadValue("a list of texts")
    try:
        return tuple(map(text, value))
    except BadValue:
        raise BadValue("a list of texts, none of them blank") from None


def language(value: Any) -> str:
    """Take a language, as an ISO 639 code or an English name."""
    code = language_code(value)
    if code == UNKNOWN_LANGUAGE:
        raise BadValue("the code of a language, such as fi")
    return code
