"""The language of a response, and its commas."""

from __future__ import annotations

from posttrain.evaluate.ifeval.base import Verifier, language
from posttrain.evaluate.ifeval.language import is_in_language
from posttrain.evaluate.ifeval.rules import Rules


def response_language(response: str, rules: Rules, *, language: str) -> bool:
    """The response is in a language."""
    return is_in_language(response, language)


def no_comma(response: str, rules: Rules) -> bool:
    """There is no comma; that of a Finnish decimal, `3,5`, is one too."""
    return "," not in response


VERIFIERS = {
    "language:response_language": Verifier(response_language, {"language": language}, needs_language=True),
    "punctuation:no_comma": Verifier(no_comma, {}),
}
