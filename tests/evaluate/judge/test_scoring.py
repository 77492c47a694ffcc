"""Scores from verdicts made by hand."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from posttrain.evaluate.judge.length_control import length_controlled
from posttrain.evaluate.judge.scoring import (
    LC_WIN_RATE,
    metrics_of_alpaca_eval,
    metrics_of_mt_bench,
    score_alpaca_eval,
    score_mt_bench,
)
from posttrain.evaluate.judge.verdicts import Choice, Verdict
from tests.evaluate.judge.judging import compared, graded, values

MT_BENCH = [
    graded("81", 1, "sft", 8.0, "writing"),
    graded("81", 2, "sft", 4.0, "writing"),
    graded("82", 1, "sft", 6.0, "maths"),
    graded("82", 2, "sft", None, "maths"),
    graded("100", 1, "sft", 1.0, "maths"),
    graded("100", 2, "sft", 2.0, "maths"),
    *[
        graded(question, turn, "base", None, category)
        for question, category in (("81", "writing"), ("82", "maths"), ("100", "maths"))
        for turn in (1, 2)
    ],
]


def orders(question: str, one: Choice | None, other: Choice | None, *lengths: int) -> list[Verdict]:
    """Return the verdicts on `sft` and the reference in both orders."""
    ours, theirs = lengths or (1, 1)
    return [
        compared(question, "sft", "reference", one, lengths=(ours, theirs)),
        compared(question, "reference", "sft", other, lengths=(theirs, ours)),
    ]


def test_mt_bench_scores_questions_that_are_graded_whole() -> None:
    found = score_mt_bench(MT_BENCH)
    assert values(found, "sft") == {
        "score": (6.0 + 1.5) / 2,
        "score_turn_1": 5.0,
        "score_turn_2": 3.0,
        "score_writing": 6.0,
        "score_maths": 1.5,
    }
    assert found.measured["base"] == [], "what nobody graded has no score"
    assert found.unjudged == {"base": {"unreadable": 6}, "sft": {"unreadable": 1}}
    assert found.verdicts == {"base": 6, "sft": 6}
    assert found.comparisons == {}
    assert found.measured["sft"][0].metric.primary
    assert {one.metric for one in found.measured["sft"]} == set(metrics_of_mt_bench(["maths", "writing"], 2, None))


def test_the_order_of_verdicts_makes_no_difference() -> None:
    mixed = MT_BENCH[:]
    random.Random(1).shuffle(mixed)
    one, other = (score_mt_bench(verdicts).measured["sft"] for verdicts in (MT_BENCH, mixed))
    assert [(a.value, a.interval(1, 50)) for a in one] == [(b.value, b.interval(1, 50)) for b in other]


def test_models_are_compared_question_by_question() -> None:
    verdicts = [
        graded(str(n), 1, model, float(n + extra)) for n in range(1, 6) for model, extra in (("a", 2), ("b", 0))
    ]
    found = score_mt_bench(verdicts).measured
    difference = found["a"][0].less(found["b"][0], 1, 100)
    assert difference.value == pytest.approx(2.0)
    assert difference.interval == pytest.approx((2.0, 2.0)), "questions differ, the two models by as much on each"
    assert [one.metric.name for one in found["a"]] == ["score"], "a single turn needs no score of its own"


def test_alpaca_eval_takes_the_lengths_of_the_right_answers() -> None:
    verdicts = [
        *orders("x", "A", "B", 10, 500),
        *orders("y", "A", "A", 20, 400),
        *orders("z", "B", "A", 900, 30),
        *orders("w", None, "B", 1, 9000),
    ]
    found = score_alpaca_eval(verdicts)
    assert values(found, "sft")["win_rate"] == 50.0
    # In the order of ids w, x, y, z: less than the raw rate, because it lost, longer, what it won and tied by brevity.
    expected = length_controlled(LC_WIN_RATE, [None, 1.0, 0.5, 0.0], [-8999, -490, -380, 870], None)
    assert values(found, "sft")["lc_win_rate"] == expected.value
    assert 20 < expected.value < 40
    assert found.unjudged == {"sft": {"unreadable": 1}}
    written = json.loads(json.dumps(found.as_json(1, 50), allow_nan=False))
    assert (written["verdicts"], written["unjudged"]) == ({"sft": 8}, {"sft": {"unreadable": 1}})
    (pair,) = written["comparisons"]
    assert (pair["a"], pair["b"], pair["value"]) == ("sft", "reference", 50.0)
    assert [pair[count] for count in ("wins", "ties", "losses", "unjudged")] == [1, 1, 1, 1]
    random.Random(3).shuffle(verdicts)
    assert values(score_alpaca_eval(verdicts), "sft") == values(found, "sft")
    assert [one.metric for one in found.measured["sft"]] == list(metrics_of_alpaca_eval())


def test_difficulty_changes_the_length_controlled_rate_only() -> None:
    plain = [verdict for n in range(30) for verdict in orders(f"{n}", "A", "B") if n % 3] + [
        verdict for n in range(0, 30, 3) for verdict in orders(f"{n}", "B", "A")
    ]
    hard = [replace(verdict, difficulty=float(int(verdict.question) % 3 == 0)) for verdict in plain]
    with_difficulty, without = (score_alpaca_eval(verdicts).measured["sft"] for verdicts in (hard, plain))
    assert with_difficulty[0].statistics.shape[1] == 30 * 4
    assert without[0].statistics.shape[1] == 30 * 3
    assert with_difficulty[0].value == pytest.approx(without[0].value, abs=2.0)
    assert with_difficulty[1].value == without[1].value == pytest.approx(100 * 2 / 3)
