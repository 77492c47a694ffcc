"""How a response begins and ends."""

from __future__ import annotations

from posttrain.evaluate.ifeval.base import Verifier, text
from posttrain.evaluate.ifeval.rules import Rules


def end_checker(response: str, rules: Rules, *, end_phrase: str) -> bool:
    """The response ends with a phrase; case and quotation marks around the response do not matter."""
    marks = "".join(dict.fromkeys("".join(map("".join, rules.quotation_marks))))
    return response.strip().strip(marks).lower().endswith(end_phrase.strip().lower())


def quotation(response: str, rules: Rules) -> bool:
    """The response is in quotation marks: `"…"`, and in Finnish `”…”` or `»…»` too."""
    found = response.strip()
    return len(found) > 1 and (found[0], found[-1]) in rules.quotation_marks


VERIFIERS = {
    "startend:end_checker": Verifier(end_checker, {"end_phrase": text}),
    "startend:quotation": Verifier(quotation, {}),
}
