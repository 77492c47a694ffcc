"""Strict and loose verdicts, and the accuracies made of them."""

from __future__ import annotations

import subprocess
import sys
from time import process_time

import pytest

from posttrain.evaluate.ifeval import (
    VERIFIERS,
    Prompt,
    judge,
    load_prompts,
    loose,
    parse_prompts,
    score,
    score_by_instruction,
    verify,
)
from tests.helpers import HEAVY, ROOT, environment

COMMA = {"key": 1, "prompt": "No comma.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
JSON = {"key": 2, "prompt": "JSON.", "instruction_id_list": ["detectable_format:json_format"], "kwargs": [{}]}
QUOTED = {"key": 3, "prompt": "Quote.", "instruction_id_list": ["startend:quotation"], "kwargs": [{}]}


def only(row: dict[str, object]) -> Prompt:
    return parse_prompts([row], "en", "rows")[0]


@pytest.mark.parametrize(
    "response",
    [
        "Sure, here it is:\n[1]",
        "[1]\nI hope, this helps.",
        "Sure:\n\n[1]\n\nBye.",
        "**[1]**",
        "Sure:\n*[1]*",
        "[1]\n**Bye.**",
        "**Sure:**\n[*1*]\nBye.",
    ],
)
def test_what_the_loose_criterion_forgives(response: str) -> None:
    assert verify(only(JSON), response) == [False]
    assert loose(only(JSON), response) == [True]


@pytest.mark.parametrize("response", ["Sure:\nHere:\n[1]", "[1] Bye.", "", " \n\n "])
def test_what_it_does_not_forgive(response: str) -> None:
    assert loose(only(JSON), response) == [False]


@pytest.mark.parametrize("language", ["en", "fi"])
def test_what_is_followed_strictly_is_followed_loosely(language: str) -> None:
    prompts = load_prompts(f"builtin:samples/ifeval-{language}.jsonl", language)
    responses = [*(prompt.prompt for prompt in prompts), "a\n***\nb", '{"a": 1}', "", "YES, NO\n* x\n* y\n* z"]
    verdicts = [judge(prompt, response) for prompt in prompts for response in responses]
    assert all(easy or not hard for verdict in verdicts for hard, easy in zip(*verdict, strict=True))
    assert any(verdict.strict != verdict.loose for verdict in verdicts)
    again = [judge(prompt, response) for prompt in prompts for response in responses]
    assert verdicts == again


@pytest.mark.parametrize("sign", ["\n", "[", "<", "*", ".", '"', "\n#"])
def test_a_model_that_repeats_one_sign_is_judged_in_linear_time(sign: str) -> None:
    prompts = load_prompts("builtin:samples/ifeval-fi.jsonl", "fi")
    started = process_time()
    for prompt in prompts:
        if any(VERIFIERS[instruction.id].needs_language for instruction in prompt.instructions):
            continue  # what is read of a response to tell its language is bounded, not its time
        judge(prompt, sign * 20_000 + "x")
    assert process_time() - started < 5  # quadratic time takes 10 s and more


def test_accuracies_in_percent() -> None:
    results = [([True, False], [True, True]), ([True], [True]), ([False], [False]), ([False], [True])]
    assert score(results) == {
        "prompt_level_strict_acc": 25.0,
        "inst_level_strict_acc": 40.0,
        "prompt_level_loose_acc": 75.0,
        "inst_level_loose_acc": 80.0,
    }
    with pytest.raises(ValueError, match="no response"):
        score([])


def test_accuracies_by_instruction() -> None:
    both = {
        **COMMA,
        "instruction_id_list": [*COMMA["instruction_id_list"], "startend:quotation"],  # type: ignore[misc]
        "kwargs": [{}, {}],
    }
    prompts = [only(both), only(QUOTED)]
    results = [judge(prompts[0], "Yes, no."), judge(prompts[1], '"Yes."\nBye.')]
    assert score_by_instruction(prompts, results) == {
        "punctuation:no_comma": {"count": 1, "strict_acc": 0.0, "loose_acc": 0.0},
        "startend:quotation": {"count": 2, "strict_acc": 0.0, "loose_acc": 50.0},
    }


def test_importing_loads_nothing_heavy() -> None:
    heavy = (*HEAVY, "heliport")
    code = f"import sys, posttrain.evaluate.ifeval; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert found.stdout == "[]\n", found.stderr
