"""Tasks that a judge scores: several turns, what the judge is given, and scores from the verdicts alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain.evaluate.answers import Answer, answers_file, read_answers
from posttrain.evaluate.kinds.judged import JudgedTask, for_judge
from posttrain.evaluate.results import dumped, rescore
from posttrain.evaluate.run import evaluate
from posttrain.recipe.schema_evaluate import AlpacaEval, EvalTask, MtBench
from posttrain.recipe.schema_generate import Teacher
from tests.evaluate.made import checkpoint, plan_of

QUESTIONS = "builtin:eval/samples/mt-bench-en.jsonl"


def test_each_turn_sees_the_answers_before_it(models: tuple[Path, Path], tmp_path: Path) -> None:
    import torch

    from posttrain.evaluate.checkpoints import load
    from posttrain.evaluate.decode import ask
    from posttrain.evaluate.kinds.base import How

    loaded = load(checkpoint(models[0]), dtype="float32", device=torch.device("cpu"))
    loaded = replace(loaded, context=None)  # its questions are longer than the tiny model's context
    task = JudgedTask("mt", MtBench(task="mt-bench", path=QUESTIONS, max_samples=2, max_tokens=5))
    answers = task.answer(loaded, How(batch_size=2, store=tmp_path, advance=lambda count: None))
    for question, answer in zip(task.questions, answers, strict=True):
        talk = [
            {"role": "user", "content": question.turns[0]},
            {"role": "assistant", "content": answer.response[0]},
            {"role": "user", "content": question.turns[1]},
        ]
        ((_, second),) = ask(loaded, [talk], max_tokens=5, batch_size=1)
        assert answer.response[1] == second.text


def test_a_turn_that_could_not_be_asked_is_none_for_the_judge() -> None:
    item: dict[str, Any] = {"turns": ["a", "b"]}
    answers = [Answer("1", "", ["x", ""], ["stop", "refused"], item), Answer("2", "", [""], ["refused"], item)]
    assert for_judge(answers) == {"1": ["x", None], "2": [None, None]}


def test_questions_under_other_column_names(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"prompt_id": 4, "category": "math", "prompt": ["1+1?", "2+2?"], "reference": ["2", "4"]}\n', "utf-8"
    )
    (question,) = JudgedTask("mt", MtBench(task="mt-bench", path=str(path))).questions
    assert (question.id, question.turns, question.references) == ("4", ("1+1?", "2+2?"), ("2", "4"))


@pytest.fixture
def tasks() -> list[EvalTask]:
    return [
        MtBench(task="mt-bench", path=QUESTIONS, against="base", max_tokens=4),
        AlpacaEval(task="alpaca-eval-2", path="builtin:eval/samples/alpaca-eval-2-en.jsonl", max_tokens=4),
    ]


def test_models_are_judged_and_scored_again(
    models: tuple[Path, Path], tasks: list[EvalTask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Teacher(engine="sample", model=str(models[0]), batch_size=4)
    pair = [checkpoint(models[0]), checkpoint(models[1], "sft", kind="sft", origin="base")]
    plan = replace(plan_of(tmp_path, tasks, pair), judge=judge)
    results = evaluate(plan)
    about = results["tasks"]["mt-bench-en"]
    assert about["metrics"]["score"] == {"unit": "score 1-10", "higher_is_better": True, "primary": True}
    assert about["options"]["judge"]["model"] == models[0].name
    assert results["tasks"]["alpaca-eval-2-en"]["metrics"]["lc_win_rate"]["primary"] is True
    assert (tmp_path / "verdicts" / "mt-bench-en.jsonl").is_file()
    assert len(read_answers(answers_file(tmp_path, "sft", "mt-bench-en"))) == 3
    for model in ("base", "sft"):
        found = results["results"][model].get("mt-bench-en", {})
        assert "score" not in found or 1 <= found["score"]["value"] <= 10
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert dumped(rescore(tmp_path)) == text
    assert str(models[0].parent) not in text
    # Asked again, nothing is answered or judged a second time, and the same comes out.
    monkeypatch.setattr("posttrain.evaluate.run.load", None)
    evaluate(plan)
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == text
