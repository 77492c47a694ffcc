"""A judged task from answers to scores: units, the judge, a file of verdicts, and the same from the file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from posttrain.data.generate.requests import Role
from posttrain.errors import UserError
from posttrain.evaluate.judge.asking import ask_judge
from posttrain.evaluate.judge.questions import Question
from posttrain.evaluate.judge.scoring import REFERENCE, Judged, score_alpaca_eval, score_mt_bench
from posttrain.evaluate.judge.units import Answers, Unit, comparisons, grades
from posttrain.evaluate.judge.verdicts import read_verdicts, write_verdicts
from posttrain.recipe.schema_generate import Teacher

Benchmark: TypeAlias = Literal["mt-bench", "alpaca-eval-2"]


def judge_task(
    name: str,
    benchmark: Benchmark,
    questions: Sequence[Question],
    answers: Mapping[str, Answers],
    judge: Teacher,
    folder: Path,
    seed: int,
    *,
    language: str,
    store: Path,
    against: str | None = None,
    section: Role = "judge",
) -> tuple[Judged, dict[str, Any]]:
    """Have a judge look at the answers of models, and write its verdicts to `folder/NAME.jsonl`.

    The verdicts, and the file, are the same for any order of models, answers and questions.

    Args:
        name: Of the task: the file's, and for messages.
        benchmark: What is done with the answers.
        questions: What was asked.
        answers: Of each model, by the question's id: a text for each turn, None where the model gave none.
        judge: The recipe's section.
        folder: Where the file goes.
        seed: The recipe's.
        language: Of the judge's prompts.
        store: The folder in which the judge's answers are kept between runs: none is asked for twice.
        against: Of MT-Bench, the model that each other one is also compared with.
        section: Which section of the recipe `judge` is, for messages.

    Returns:
        The scores, and what was asked for in this run.

    Raises:
        Interrupted: A signal stopped it; the same call goes on from there.
        UserError: The judge cannot be asked, or the models' names do not fit.
    """
    units = _units(name, benchmark, questions, answers, against)
    verdicts, asked = ask_judge(name, units, language, judge, store, seed, section=section)
    path = verdicts_file(folder, name)
    write_verdicts(path, verdicts)
    return _scored(benchmark, path, against), asked


def rescore_judged(name: str, benchmark: Benchmark, folder: Path, against: str | None = None) -> Judged:
    """Return the scores of a task from its file of verdicts: equal to those that `judge_task` returned.

    Raises:
        UserError: The file is missing or damaged.
    """
    return _scored(benchmark, verdicts_file(folder, name), against)


def verdicts_file(folder: Path, name: str) -> Path:
    """Return where the verdicts of a task are."""
    return folder / f"{name}.jsonl"


def _scored(benchmark: Benchmark, path: Path, against: str | None) -> Judged:
    verdicts = read_verdicts(path)
    return score_alpaca_eval(verdicts) if benchmark == "alpaca-eval-2" else score_mt_bench(verdicts, against)


def _units(
    name: str, benchmark: Benchmark, questions: Sequence[Question], answers: Mapping[str, Answers], against: str | None
) -> list[Unit]:
    if benchmark == "alpaca-eval-2":
        if REFERENCE in answers:
            raise UserError(
                f"eval: {name}: a model is called {REFERENCE!r}, as are the answers that it is compared with; give it "
                "another name"
            )
        both = {**answers, REFERENCE: {question.id: question.references for question in questions}}
        return list(comparisons(questions, both, REFERENCE, solved=False))
    units = list(grades(questions, answers))
    if against is not None:
        if against not in answers:
            raise UserError(
                f"eval: {name}: no model called {against!r} is measured to compare the others with; `against` can be "
                f"one of {', '.join(sorted(answers))}"
            )
        units += comparisons(questions, answers, against, solved=True)
    return units
