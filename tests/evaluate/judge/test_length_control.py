"""The length-controlled win rate: against theory, against itself turned round, and where it cannot know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from posttrain.evaluate.bootstrap import Array
from posttrain.evaluate.judge.length_control import LENGTH_VARIANCE, VARIANCE, coefficients, length_controlled
from posttrain.evaluate.metrics import Measured, Metric

METRIC = Metric("lc_win_rate", "%")


def rate(
    verdicts: Sequence[float | None] | Array, lengths: Sequence[int] | Array, difficulty: Array | None = None
) -> Measured:
    gamma = None if difficulty is None else [float(value) for value in difficulty]
    return length_controlled(
        METRIC, [None if v is None else float(v) for v in verdicts], [int(n) for n in lengths], gamma
    )


def drawn(number: int, theta: float, phi: float, seed: int, mean: float = 300.0) -> tuple[Array, Array]:
    """Draw lengths and verdicts from the model itself."""
    draw = np.random.default_rng(seed)
    lengths = draw.normal(mean, 500.0, number).round()
    odds = theta + phi * np.tanh(lengths / lengths.std(ddof=1))
    return (draw.random(number) < 1 / (1 + np.exp(-odds))).astype(np.float64), lengths


def test_without_a_difference_in_length_it_is_the_win_rate() -> None:
    verdicts = np.repeat([1.0, 0.5, 0.0], [300, 60, 445])
    raw = 100 * verdicts.mean()
    for lengths in (np.zeros(805), np.full(805, 70.0)):
        found = rate(verdicts, lengths)
        assert found.value == pytest.approx(raw, abs=0.1)
        assert found.interval(1, 200) == pytest.approx(
            [raw - 1.96 * s for s in (100 * verdicts.std() / 805**0.5, -100 * verdicts.std() / 805**0.5)], abs=1.0
        )


def test_it_recovers_what_the_verdicts_were_drawn_from() -> None:
    truth = 100 / (1 + np.exp(-0.6))
    for seed in range(3):
        verdicts, lengths = drawn(1500, 0.6, 1.5, seed)
        assert 100 * verdicts.mean() > truth + 5, "length matters in this test"
        assert rate(verdicts, lengths).value == pytest.approx(truth, abs=5.0)


def test_its_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth, covered = 100 / (1 + np.exp(0.4)), 0
    for seed in range(25):
        low, high = rate(*drawn(120, -0.4, 1.0, 100 + seed)).interval(seed, 100) or (0.0, 0.0)
        covered += low <= truth <= high
    assert 20 <= covered <= 25


def test_two_models_against_each_other_share_a_hundred() -> None:
    verdicts, lengths = drawn(200, 0.3, 0.8, 4)
    gamma = np.random.default_rng(1).normal(size=200)
    for difficulty in (None, gamma):
        one, other = rate(verdicts, lengths, difficulty), rate(1 - verdicts, -lengths, difficulty)
        assert one.value + other.value == pytest.approx(100.0)
        low, high = one.interval(2, 100) or (0.0, 0.0)
        assert other.interval(2, 100) == pytest.approx((100 - high, 100 - low))


def test_a_judge_that_goes_by_length_alone() -> None:
    draw = np.random.default_rng(0)
    mostly = draw.integers(-800, 1600, 300).astype(np.float64)
    found = rate(np.where(mostly > 0, 1.0, 0.0), mostly)
    assert found.value == pytest.approx(50.0, abs=10.0)
    low, high = found.interval(1, 100) or (0.0, 0.0)
    assert low < 50 < high
    always = draw.integers(900, 1100, 805).astype(np.float64)
    assert rate(np.ones(805), always).value == pytest.approx(50.0, abs=3.0)
    neither = draw.integers(-900, 900, 805).astype(np.float64)
    assert rate(np.ones(805), neither).value > 99.5, "wins at all lengths are the model's own"


def test_longer_answers_are_worth_less_where_length_wins() -> None:
    verdicts, lengths = drawn(500, 0.0, 2.0, 9)
    assert rate(verdicts, lengths).value < 100 * verdicts.mean() - 5
    verdicts, lengths = drawn(500, 0.0, 2.0, 9, mean=-300.0)
    assert rate(verdicts, lengths).value > 100 * verdicts.mean() + 5


def test_the_coefficients_are_where_the_slope_is_zero() -> None:
    draw = np.random.default_rng(7)
    terms = np.stack([np.ones(60), np.tanh(draw.normal(size=60)), draw.normal(size=60)], axis=-1)
    verdicts = draw.choice([0.0, 0.5, 1.0], 60)
    weights = draw.integers(0, 4, (5, 60)).astype(np.float64)
    found = coefficients(np.broadcast_to(verdicts, (5, 60)), weights, np.broadcast_to(terms, (5, 60, 3)))
    for beta, weight in zip(found, weights, strict=True):

        def loss(at: Array, weight: Array = weight) -> float:
            odds = terms @ at
            prior = (at**2 / np.array([VARIANCE, LENGTH_VARIANCE, VARIANCE])).sum() / 2
            return float((weight * (np.log1p(np.exp(odds)) - verdicts * odds)).sum() + prior)

        for step in np.eye(3) * 1e-4:
            assert (loss(beta + step) - loss(beta - step)) / 2e-4 == pytest.approx(0.0, abs=1e-6)
            assert loss(beta + 100 * step) > loss(beta)
    alone = coefficients(verdicts, weights[2], terms)
    assert alone == pytest.approx(found[2])


def test_weights_stand_for_repeated_instructions() -> None:
    verdicts, lengths = drawn(50, 0.3, 0.8, 4)
    terms = np.stack([np.ones(50), np.tanh(lengths / 500)], axis=-1)
    weights = np.random.default_rng(3).multinomial(50, np.full(50, 1 / 50)).astype(np.float64)
    rows = np.repeat(np.arange(50), weights.astype(int))
    assert coefficients(verdicts, weights, terms) == pytest.approx(
        coefficients(verdicts[rows], np.ones(50), terms[rows])
    )


def test_what_is_unjudged_counts_for_nothing() -> None:
    verdicts, lengths = drawn(80, 0.3, 0.8, 4)
    with_gaps: list[float | None] = [None if number % 9 == 0 else float(v) for number, v in enumerate(verdicts)]
    kept = [number for number in range(80) if number % 9]
    found = rate(with_gaps, lengths)
    assert found.value == pytest.approx(rate(verdicts[kept], lengths[kept]).value)
    assert found.interval(1, 50) is not None
    assert rate([None, None, 1.0], [5, 6, 7]).value == pytest.approx(rate([1.0], [7]).value)


def test_difficulty_is_averaged_over_and_not_taken_out() -> None:
    draw = np.random.default_rng(2)
    gamma = draw.normal(0.5, 1.0, 1000)
    chances = 1 / (1 + np.exp(-(0.2 - 1.5 * gamma)))
    verdicts = (draw.random(1000) < chances).astype(np.float64)
    assert rate(verdicts, np.zeros(1000), gamma).value == pytest.approx(100 * chances.mean(), abs=3.0)


def test_models_are_compared_on_the_same_draws() -> None:
    one, lengths = drawn(120, 0.8, 0.5, 1)
    other, _ = drawn(120, -0.8, 0.5, 2)
    found = rate(one, lengths).less(rate(other, lengths), 3, 200)
    assert found.value == pytest.approx(rate(one, lengths).value - rate(other, lengths).value)
    assert found.interval is not None
    assert found.interval[0] > 0
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert rate(one, lengths).less(rate(one, lengths), 3, 200).value == 0.0


def test_values_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(ArithmeticError, match="does not converge"):
        coefficients(np.array([1.0, np.nan]), np.ones(2), np.ones((2, 2)))
