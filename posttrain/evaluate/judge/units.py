"""What a judge is asked about the answers of several models: one unit for each answer graded, two for each pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from posttrain.data.rows import Message
from posttrain.evaluate.judge.questions import Question, in_order
from posttrain.evaluate.judge.verdicts import NO_ANSWER, Kind, Verdict

# Of one model: by question the answer to each of its turns, None where there is none.
Answers: TypeAlias = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One thing to ask the judge.

    Attributes:
        id: Names the unit within its task; the seeds of repeated requests derive from it.
        blank: The verdict without what the judge says; of one with `unjudged` the judge is not asked.
        values: What the prompt is filled with.
    """

    id: str
    blank: Verdict
    values: Mapping[str, Any] = field(default_factory=dict)


def grades(questions: Sequence[Question], answers: Mapping[str, Answers]) -> Iterator[Unit]:
    """Yield a unit for each answer of each model, in an order that does not depend on that of the arguments."""
    for question in _sorted(questions):
        for turn in range(1, len(question.turns) + 1):
            for model in sorted(answers):
                conversation = _conversation(question, answers[model], turn)
                values = None
                if conversation is not None:
                    values = {
                        "conversation": conversation[:-1],
                        "references": _references(question, turn),
                        "answer": conversation[-1]["content"],
                    }
                yield _unit("grade", question, turn, {model: conversation}, values)


def comparisons(
    questions: Sequence[Question], answers: Mapping[str, Answers], against: str, *, solved: bool
) -> Iterator[Unit]:
    """Yield the two orders of each pair of answers, one of a model and one of `against`, in an order as `grades`.

    Args:
        questions: What was asked.
        answers: Of each model, that of `against` included.
        against: The model that all others are compared with.
        solved: Whether the judge is shown the questions' references as solutions.
    """
    for question in _sorted(questions):
        for turn in range(1, len(question.turns) + 1):
            for model in sorted(answers.keys() - {against}):
                pair = {name: _conversation(question, answers[name], turn) for name in (model, against)}
                for first, second in ((model, against), (against, model)):
                    values = {
                        "a": pair[first],
                        "b": pair[second],
                        "references": _references(question, turn) if solved else [],
                    }
                    whole = pair[first] is not None and pair[second] is not None
                    shown = {first: pair[first], second: pair[second]}
                    yield _unit("compare", question, turn, shown, values if whole else None)


def _unit(
    kind: Kind,
    question: Question,
    turn: int,
    shown: Mapping[str, list[Message] | None],
    values: Mapping[str, Any] | None,
) -> Unit:
    without = [model for model, conversation in shown.items() if conversation is None]
    return Unit(
        id="\0".join([kind, question.id, str(turn), *shown]),
        blank=Verdict(
            question=question.id,
            category=question.category,
            turn=turn,
            models=tuple(shown),
            kind=kind,
            lengths=tuple(len(turns[-1]["content"]) if turns is not None else 0 for turns in shown.values()),
            prompt_sha256=None,
            unjudged=f"{NO_ANSWER}: of {', '.join(without)}" if without else None,
            difficulty=question.difficulty,
        ),
        values=values or {},
    )


def _conversation(question: Question, answers: Answers, turn: int) -> list[Message] | None:
    """Return user and assistant in turn up to an answer, or None where one of the answers is missing.

    Raises:
        ValueError: The model was not asked this question.
    """
    given = answers.get(question.id)
    if given is None or len(given) != len(question.turns):
        raise ValueError(f"question {question.id}: {len(question.turns)} answers are needed, None for those not given")
    conversation: list[Message] = []
    for asked, answer in zip(question.turns[:turn], given[:turn], strict=True):
        if answer is None:
            return None
        conversation += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return conversation


def _references(question: Question, turn: int) -> list[dict[str, Any]]:
    return [
        {"number": number, "content": text}
        for number, text in enumerate(question.references[:turn], start=1)
        if text is not None
    ]


def _sorted(questions: Sequence[Question]) -> list[Question]:
    by_id = {question.id: question for question in questions}
    return [by_id[name] for name in in_order(list(by_id))]
