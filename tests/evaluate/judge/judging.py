"""What tests of judging share: a server whose judge follows a rule, questions, and verdicts made by hand."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.evaluate.judge.questions import Question
from posttrain.evaluate.judge.task import judge_task
from posttrain.evaluate.judge.units import Answers
from posttrain.evaluate.judge.verdicts import Choice, Verdict
from posttrain.recipe.schema_generate import Teacher
from tests.data.generate.fake_server import FakeServer

Rule = Callable[[str], str]
PROBE = "What is the capital of Finland?"


class JudgeServer(FakeServer):
    """A server whose model answers every prompt of a judge by a rule; it enforces no schema."""

    def __init__(self, rule: Rule, **options: Any) -> None:
        super().__init__(schema="ignore", **options)
        self.rule = rule

    def __enter__(self) -> JudgeServer:
        super().__enter__()
        return self

    def _reply(self, body: dict[str, Any], prompt: str) -> dict[str, Any]:
        reply = super()._reply(body, prompt)
        if not prompt.startswith(PROBE):
            reply["choices"][0]["message"]["content"] = self.rule(prompt)
        return reply

    @property
    def judged(self) -> int:
        """How many answers a judge gave, apart from the question by which it is tried out."""
        return sum(count for prompt, count in self.answered.items() if not prompt.startswith(PROBE))


def shown(prompt: str) -> list[str]:
    """Return the answers that a prompt shows, in its order."""
    return re.findall(r"^<answer[-\d]*>\n(.*?)\n</answer", prompt, re.DOTALL | re.MULTILINE)


def first(prompt: str) -> str:
    """Prefer whatever comes first."""
    return "A is well put.\n\nVerdict: A"


def longer(prompt: str) -> str:
    """Prefer the longer answer."""
    a, b = map(len, shown(prompt))
    return f"Length tells.\n\nVerdict: {'tie' if a == b else 'A' if a > b else 'B'}"


def by_length(prompt: str) -> str:
    """Give a point for every ten characters."""
    (answer,) = shown(prompt)
    return f"Long enough.\n\nScore: {min(10, 1 + len(answer) // 10)}/10"


def grade_or_compare(prompt: str) -> str:
    """Do what is asked for, by length."""
    return by_length(prompt) if prompt.endswith("/10") else longer(prompt)


def questions(number: int, turns: int = 1, categories: Sequence[str] = ("writing", "maths")) -> list[Question]:
    return [
        Question(
            id=str(index + 81),
            category=categories[index % len(categories)],
            turns=tuple(f"Question {index}, turn {turn}?" for turn in range(turns)),
            references=tuple(f"Reference {index}, turn {turn}." * 3 for turn in range(turns)),
        )
        for index in range(number)
    ]


def texts(asked: Sequence[Question], length: Callable[[int], int], name: str) -> dict[str, list[str]]:
    """Return answers of given lengths in characters, each another text."""
    return {
        question.id: [
            f"{name} {question.id} {turn} ".ljust(length(index), "x")[: length(index)]
            for turn in range(len(question.turns))
        ]
        for index, question in enumerate(asked)
    }


def judged(
    server: FakeServer,
    folder: Path,
    benchmark: Any,
    asked: Sequence[Question],
    answers: Mapping[str, Answers],
    *,
    language: str = "en",
    against: str | None = None,
    out: str = "out",
    **teacher: Any,
) -> tuple[Any, dict[str, Any]]:
    """Have a server judge answers; its answers are kept in `folder`."""
    return judge_task(
        "task",
        benchmark,
        asked,
        answers,
        Teacher(model="judge", base_url=server.url, max_concurrency=16, **teacher),
        folder / out,
        7,
        language=language,
        store=folder / "answers",
        against=against,
    )


def values(found: Any, model: str) -> dict[str, float]:
    """Return a model's figures by name."""
    return {one.metric.name: one.value for one in found.measured[model]}


def shuffled(mapping: Mapping[str, Any], seed: int) -> dict[str, Any]:
    items = list(mapping.items())
    random.Random(seed).shuffle(items)
    return dict(items)


def compared(
    question: str, first: str, second: str, choice: Choice | None, *, lengths: tuple[int, int] = (1, 1), **keys: Any
) -> Verdict:
    """Return a verdict on two models in the order shown."""
    return Verdict(
        question=question,
        category=None,
        turn=1,
        models=(first, second),
        kind="compare",
        lengths=lengths,
        prompt_sha256=None,
        choice=choice,
        unjudged=None if choice is not None else "unreadable",
        **keys,
    )


def graded(question: str, turn: int, model: str, score: float | None, category: str | None = None) -> Verdict:
    """Return a grade."""
    return Verdict(
        question=question,
        category=category,
        turn=turn,
        models=(model,),
        kind="grade",
        lengths=(1,),
        prompt_sha256=None,
        score=score,
        unjudged=None if score is not None else "unreadable",
    )
