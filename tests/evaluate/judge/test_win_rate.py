"""Outcomes of both orders, and what they come to."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from posttrain.evaluate.bootstrap import interval
from posttrain.evaluate.judge.verdicts import CHOICES, Choice
from posttrain.evaluate.judge.win_rate import compare, outcome, wilson
from tests.evaluate.judge.judging import compared


def test_a_win_needs_both_orders() -> None:
    points = {"A": 1, "B": -1, "tie": 0}
    choices: list[Choice | None] = [*CHOICES, None]
    for one, other in itertools.product(choices, choices):
        pair = [compared("1", "x", "y", one), compared("1", "y", "x", other)]
        found = outcome(pair, "x")
        assert found == outcome(pair[::-1], "x")
        if one is None or other is None:
            assert found is None
            continue
        total = points[one] - points[other]
        assert found == {2: 1.0, -2: 0.0}.get(total, 0.5)
        assert outcome(pair, "y") == 1 - found


def test_an_outcome_needs_one_verdict_of_each_order() -> None:
    pair = [compared("1", "x", "y", "A"), compared("1", "y", "x", "B")]
    for wrong in (pair[:1], [pair[0], pair[0]], [*pair, pair[0]], []):
        with pytest.raises(ValueError, match="not both orders"):
            outcome(wrong, "x")
    with pytest.raises(ValueError, match="a pair with z"):
        outcome(pair, "z")


@pytest.mark.parametrize(
    ("wins", "number", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilsons_interval(wins: int, number: int, low: float, high: float) -> None:
    """Newcombe (1998), table I, method 3, has the last; the others are its closed form at 0, 1/2 and 1."""
    assert wilson(wins, number) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_solves_its_equation() -> None:
    z = 1.959963984540054
    for wins, number in ((3, 17), (200, 805), (1, 2)):
        for bound in wilson(wins, number):
            assert (wins / number - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / number)
    for wins, number in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match=f"{wins} wins of {number}"):
            wilson(wins, number)


def test_a_comparison_counts_turns_and_weighs_questions() -> None:
    found = compare("x", "y", {"1": [1.0, 1.0], "2": [1.0, 0.5], "3": [0.0, None], "4": [None], "5": [0.0, 0.0]})
    assert (found.wins, found.ties, found.losses, found.unjudged) == (3, 1, 3, 2)
    assert found.win_rate.value == pytest.approx(100 * (1 + 0.75 + 0) / 3)
    assert found.wilson is None
    written = found.as_json(seed=3)
    assert (written["a"], written["b"], written["unjudged"], written["metric"]) == ("x", "y", 2, "win_rate")
    assert written["interval"][0] <= written["value"] <= written["interval"][1]


def test_the_interval_is_that_of_the_mean_over_questions() -> None:
    outcomes = np.random.default_rng(1).choice([0.0, 0.5, 1.0], 50)
    found = compare("x", "y", {str(number): [float(value)] for number, value in enumerate(outcomes)})
    assert found.win_rate.interval(5, 500) == pytest.approx(interval(list(100 * outcomes), 5, 500))


def test_wilson_is_given_where_nothing_is_tied() -> None:
    won: dict[str, list[float | None]] = {str(number): [1.0, 1.0] for number in range(6)}
    lost: dict[str, list[float | None]] = {str(number): [0.0, 0.0] for number in range(6, 10)}
    found = compare("x", "y", {**won, **lost, "10": [None, 1.0]}).wilson
    assert found == pytest.approx([100 * bound for bound in wilson(6, 10)])
    assert compare("x", "y", {**won, "tied": [1.0, 0.0]}).wilson is None
    assert compare("x", "y", {"1": [None]}).wilson is None
