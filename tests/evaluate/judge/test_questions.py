"""Questions as files have them, and what is wrong with them told together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import UserError
from posttrain.evaluate.judge.questions import alpaca_eval_questions, generators, in_order, mt_bench_questions


def row(**keys: Any) -> dict[str, Any]:
    return {"question_id": 81, "category": "maths", "turns": ["2 + 2?", "And 3?"], **keys}


def test_mt_bench_questions() -> None:
    (found,) = mt_bench_questions([row(reference=["4.", None])], "mt-bench-en")
    assert (found.id, found.category, found.turns) == ("81", "maths", ("2 + 2?", "And 3?"))
    assert found.references == ("4.", None)
    for reference in (None, [], "", [""]):
        assert mt_bench_questions([row(reference=reference)], "x")[0].references == (None, None)
    assert mt_bench_questions([row(reference="4.")], "x")[0].references == ("4.", None)
    assert mt_bench_questions([row(category=None)], "x")[0].category is None


def test_bad_questions_are_told_together() -> None:
    rows = [
        row(turns="one text"),
        row(turns=[]),
        row(turns=["a", " "]),
        row(question_id=None),
        row(reference=["a", "b", "c"]),
        row(reference=[1]),
    ]
    with pytest.raises(UserError) as caught:
        mt_bench_questions(rows, "mt-bench-fi")
    assert [problem[:23] for problem in caught.value.problems] == [
        f"eval: mt-bench-fi: row {number}"[:23] for number in range(1, 7)
    ]
    assert "row 4 has no question_id" in caught.value.problems[3]
    with pytest.raises(UserError, match="several rows have the question_id 81"):
        mt_bench_questions([row(), row()], "x")
    with pytest.raises(UserError, match="and 10 more"):
        mt_bench_questions([row(turns=[])] * 20, "x")


def test_alpaca_eval_questions() -> None:
    rows = [
        {"instruction": "Hi", "output": "Hello", "generator": "m", "dataset": "d"},
        {"instruction": "Hi", "output": "", "generator": "m", "dataset": "e"},
        {"instruction": "Hi", "output": "Again", "dataset": "d"},
    ]
    found = alpaca_eval_questions(rows, "x")
    assert [question.references for question in found] == [("Hello",), ("",), ("Again",)]
    assert found[0].id != found[1].id
    assert found[2].id == f"{found[0].id}-2"
    assert (found[0].category, found[0].generator, found[0].difficulty) == ("d", "m", None)
    assert generators(found) == ["m"]
    alone = alpaca_eval_questions([rows[1]], "x")
    assert alone[0].id == found[1].id, "an id does not depend on the other rows"


def test_difficulty_is_in_all_rows_or_in_none() -> None:
    rows: list[dict[str, Any]] = [
        {"instruction": str(number), "output": "a", "instruction_difficulty": number / 2} for number in range(3)
    ]
    assert [question.difficulty for question in alpaca_eval_questions(rows, "x")] == [0.0, 0.5, 1.0]
    for wrong in (None, True, "1", float("nan")):
        rows[1]["instruction_difficulty"] = wrong
        with pytest.raises(UserError, match="row 2 has no number under instruction_difficulty, and other rows have"):
            alpaca_eval_questions(rows, "x")


def test_bad_instructions_are_told_together() -> None:
    rows: list[dict[str, Any]] = [{"instruction": " ", "output": "a"}, {"instruction": "a"}, {"output": 3}]
    with pytest.raises(UserError) as caught:
        alpaca_eval_questions(rows, "x")
    assert caught.value.problems == [
        "eval: x: row 1: instruction has to be a text",
        "eval: x: row 2: output has to be a text",
        "eval: x: row 3: instruction has to be a text",
        "eval: x: row 3: output has to be a text",
    ]


def test_numbers_are_ordered_by_value() -> None:
    assert in_order(["100", "b", "81", "a", "9"]) == ["9", "81", "100", "a", "b"]


@pytest.mark.parametrize("language", ["en", "fi"])
def test_the_published_questions(real_data: Path, language: str) -> None:
    lines = (real_data / f"mt-bench-{language}.jsonl").read_text(encoding="utf-8").split("\n")
    found = mt_bench_questions([json.loads(line) for line in lines if line], "x")
    assert len(found) == 80
    assert len({question.category for question in found}) == 8
    assert {len(question.turns) for question in found} == {2}
