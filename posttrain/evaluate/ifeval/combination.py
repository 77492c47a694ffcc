"""The prompt repeated, and two responses in one."""

from __future__ import annotations

from posttrain.evaluate.ifeval.base import Verifier, text
from posttrain.evaluate.ifeval.rules import Rules


def repeat_prompt(response: str, rules: Rules, *, prompt_to_repeat: str) -> bool:
    """The response begins with the request, word for word; case does not matter."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def two_responses(response: str, rules: Rules) -> bool:
    """There are exactly two different responses, parted by `******`; there may be dividers at the two ends."""
    responses = [part.strip() for part in response.split("******")]
    if not all(responses[1:-1]):
        return False
    given = [part for part in responses if part]
    return len(given) == 2 and given[0] != given[1]


VERIFIERS = {
    "combination:repeat_prompt": Verifier(repeat_prompt, {"prompt_to_repeat": text}),
    "combination:two_responses": Verifier(two_responses, {}),
}
