"""IFEval of the project's own: 25 kinds of instruction whose following a program can verify, in English and Finnish.

The prompts' shape, the instructions and the accuracies are those of "Instruction-Following Evaluation for Large
Language Models" (Zhou et al. 2023, 2311.07911). The verifiers are deterministic, need no download, and know both
languages; where they differ from those of lm-eval, `DIFFERENCES.md` in this folder says how and why. So results state
`IFEVAL_VERSION`, which grows with every change that can change a verdict.

    prompts = load_prompts("builtin:samples/ifeval-fi.jsonl", "fi")
    check_ready(prompts)
    score(judge(prompt, response) for prompt, response in zip(prompts, responses, strict=True))

Three kinds of instruction need heliport (extra `language`), whose version is part of such a result too.
"""

from __future__ import annotations

from posttrain.evaluate.ifeval.prompts import Instruction, Prompt, load_prompts, parse_prompts
from posttrain.evaluate.ifeval.registry import VERIFIERS
from posttrain.evaluate.ifeval.rules import LANGUAGES
from posttrain.evaluate.ifeval.scoring import (
    Verdict,
    check_ready,
    judge,
    loose,
    score,
    score_by_instruction,
    verify,
)

IFEVAL_VERSION = "1.0"

__all__ = [
    "IFEVAL_VERSION",
    "LANGUAGES",
    "VERIFIERS",
    "Instruction",
    "Prompt",
    "Verdict",
    "check_ready",
    "judge",
    "load_prompts",
    "loose",
    "parse_prompts",
    "score",
    "score_by_instruction",
    "verify",
]
