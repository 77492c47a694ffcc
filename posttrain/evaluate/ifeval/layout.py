"""Formats that can be detected: lists, titles, sections, highlights, JSON, one of three answers."""

from __future__ import annotations

import json
import re

from posttrain.evaluate.ifeval.base import Verifier, positive, text
from posttrain.evaluate.ifeval.rules import Rules

# The rest of a line belongs to its point, so that a line of a lone asterisk takes the next one with it.
_POINTS = (re.compile(r"^[^\S\n]*\*[^*].*$", re.MULTILINE), re.compile(r"^[^\S\n]*-", re.MULTILINE))
_HIGHLIGHTS = (re.compile(r"\*([^\n*]*)\*"), re.compile(r"\*\*([^\n*]*)\*\*"))
_JSON_FENCES = ("```json", "```Json", "```JSON", "```")


def number_bullet_lists(response: str, rules: Rules, *, num_bullets: int) -> bool:
    """There are exactly so many points of a list, each a line that begins with `*` or `-`; `**` begins bold text."""
    return sum(len(point.findall(response)) for point in _POINTS) == num_bullets


def title(response: str, rules: Rules) -> bool:
    """There is a title in double angle brackets, on one line: `<<The title>>`."""
    for line in response.split("\n"):  # not by a pattern, which takes quadratic time on a line of brackets alone
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end - 2 and line[start:end].lstrip("<").rstrip(">").strip():
            return True
    return False


def constrained_response(response: str, rules: Rules) -> bool:
    """One of three answers occurs: yes, no or maybe, in the words that the prompt gives."""
    return any(answer in response for answer in rules.answers)


def number_highlighted_sections(response: str, rules: Rules, *, num_highlights: int) -> bool:
    """There are at least so many passages `*like this*` or `**like this**`, none over a line break."""
    return sum(bool(found.strip()) for sign in _HIGHLIGHTS for found in sign.findall(response)) >= num_highlights


def multiple_sections(response: str, rules: Rules, *, section_spliter: str, num_sections: int) -> bool:
    """There are at least so many sections, marked by a word and a number: `SECTION 1`, `OSIO 1`."""
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", response)) >= num_sections


def json_format(response: str, rules: Rules) -> bool:
    """The whole response is JSON; there may be a Markdown fence around it."""
    found = response.strip()
    for fence in _JSON_FENCES:
        found = found.removeprefix(fence)
    try:
        json.loads(found.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


VERIFIERS = {
    "detectable_format:number_bullet_lists": Verifier(number_bullet_lists, {"num_bullets": positive}),
    "detectable_format:title": Verifier(title, {}),
    "detectable_format:constrained_response": Verifier(constrained_response, {}),
    "detectable_format:number_highlighted_sections": Verifier(
        number_highlighted_sections, {"num_highlights": positive}
    ),
    "detectable_format:multiple_sections": Verifier(
        multiple_sections, {"section_spliter": text, "num_sections": positive}
    ),
    "detectable_format:json_format": Verifier(json_format, {}),
}
