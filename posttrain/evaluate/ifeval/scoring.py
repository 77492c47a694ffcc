"""Whether responses follow the instructions of their prompts, strictly and loosely (Zhou et al. 2023, 2311.07911)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from posttrain.data.steps.identifier import check_installed
from posttrain.errors import UserError
from posttrain.evaluate.ifeval.language import can_be_told
from posttrain.evaluate.ifeval.prompts import Instruction, Prompt
from posttrain.evaluate.ifeval.registry import VERIFIERS
from posttrain.evaluate.ifeval.rules import LANGUAGES, Rules


class Verdict(NamedTuple):
    """Which instructions of a prompt a response follows, in their order, strictly and loosely."""

    strict: list[bool]
    loose: list[bool]


def check_ready(prompts: Iterable[Prompt]) -> None:
    """Check that responses to some prompts can be verified here; loads heliport where they need it.

    Raises:
        UserError: heliport is not installed, or does not know a language that a prompt demands.
    """
    demands = [
        (prompt, instruction)
        for prompt in prompts
        for instruction in prompt.instructions
        if VERIFIERS[instruction.id].needs_language
    ]
    if not demands:
        return
    check_installed("IFEval", "leave out the prompts that demand a language")
    languages = ((prompt, instruction.arguments.get("language", prompt.language)) for prompt, instruction in demands)
    unknown = [
        f"IFEval: the prompt with the key {prompt.key!r} demands the language {code!r}, which heliport does not know"
        for prompt, code in languages
        if not can_be_told(code)
    ]
    if unknown:
        raise UserError(unknown)


def verify(prompt: Prompt, response: str) -> list[bool]:
    """Tell for each instruction of a prompt whether a response follows it, strictly; a blank one follows none.

    Raises:
        UserError: heliport is not installed, and an instruction needs it.
    """
    return [_follows(instruction, response, LANGUAGES[prompt.language]) for instruction in prompt.instructions]


def loose(prompt: Prompt, response: str) -> list[bool]:
    """Tell for each instruction of a prompt whether any of a response's eight variants follows it.

    The paper's loose criterion forgives an introduction, a closing line and Markdown's asterisks: the variants are the
    response as it is, without its first line, without its last, and without both, each with and without asterisks.

    Raises:
        UserError: heliport is not installed, and an instruction needs it.
    """
    rules = LANGUAGES[prompt.language]
    variants = list(dict.fromkeys(_variants(response)))
    return [any(_follows(instruction, variant, rules) for variant in variants) for instruction in prompt.instructions]


def judge(prompt: Prompt, response: str) -> Verdict:
    """Return both verdicts on a response.

    Raises:
        UserError: heliport is not installed, and an instruction needs it.
    """
    return Verdict(verify(prompt, response), loose(prompt, response))


def score(results: Iterable[tuple[Sequence[bool], Sequence[bool]]]) -> dict[str, float]:
    """Return the four accuracies, in percent.

    Args:
        results: For each prompt what `judge` returns: the strict verdicts and the loose ones.

    Returns:
        `prompt_level_strict_acc` and `prompt_level_loose_acc`, the share of prompts all of whose instructions are
        followed; `inst_level_strict_acc` and `inst_level_loose_acc`, the share of instructions, over all prompts.

    Raises:
        ValueError: There is no result.
    """
    judged = list(results)
    if not judged:
        raise ValueError("no response was judged, so there is nothing to score")
    columns = {"strict": [strict for strict, _ in judged], "loose": [loosely for _, loosely in judged]}
    scores = {}
    for name, verdicts in columns.items():
        scores[f"prompt_level_{name}_acc"] = _percent([all(verdict) for verdict in verdicts])
        scores[f"inst_level_{name}_acc"] = _percent([followed for verdict in verdicts for followed in verdict])
    return scores


def score_by_instruction(
    prompts: Sequence[Prompt], results: Sequence[tuple[Sequence[bool], Sequence[bool]]]
) -> dict[str, dict[str, float]]:
    """Return for each kind of instruction that occurs how often it does, and how many percent are followed.

    Args:
        prompts: The prompts.
        results: Their results, as `score` takes them, in the same order.

    Returns:
        By the instruction's id, sorted: `count`, `strict_acc` and `loose_acc`.
    """
    found: dict[str, list[tuple[bool, bool]]] = {}
    for prompt, (strict, loosely) in zip(prompts, results, strict=True):
        for instruction, *followed in zip(prompt.instructions, strict, loosely, strict=True):
            found.setdefault(instruction.id, []).append((followed[0], followed[1]))
    return {
        name: {
            "count": len(verdicts),
            "strict_acc": _percent([strictly for strictly, _ in verdicts]),
            "loose_acc": _percent([loosely for _, loosely in verdicts]),
        }
        for name, verdicts in sorted(found.items())
    }


def _follows(instruction: Instruction, response: str, rules: Rules) -> bool:
    if not response.strip():
        return False
    if rules.composed:
        response = unicodedata.normalize("NFC", response)
    return VERIFIERS[instruction.id].check(response, rules, **instruction.arguments)


def _variants(response: str) -> Iterator[str]:
    lines = response.split("\n")
    for kept in (lines, lines[1:], lines[:-1], lines[1:-1]):
        variant = "\n".join(kept) if kept is lines else "\n".join(kept).strip()
        yield variant
        yield variant.replace("*", "")


def _percent(followed: Sequence[bool]) -> float:
    return 100 * sum(followed) / len(followed)
