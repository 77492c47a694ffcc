"""Intervals and paired comparisons, against closed forms and plain resampling."""

from __future__ import annotations

import numpy as np
import pytest

from posttrain.evaluate.bootstrap import interval, interval_of, mean, paired, paired_of
from posttrain.evaluate.metrics import ratio


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=2000)
    ends = interval(values.tolist(), seed=5, resamples=4000)
    assert ends is not None
    error = values.std() / np.sqrt(len(values))
    assert ends == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error)


def test_a_ratio_of_sums_is_resampled_as_one() -> None:
    """As if each draw were made by picking rows: the same ends, to the accuracy of so many draws."""
    random = np.random.default_rng(2)
    statistics = np.stack([random.poisson(3, 400), random.poisson(9, 400)], axis=1).astype(float)
    ends = interval_of(statistics, ratio(0, 1), seed=1, resamples=3000)
    picked = [statistics[random.integers(0, 400, 400)].sum(axis=0) for _ in range(3000)]
    low, high = np.quantile([top / bottom for top, bottom in picked], [0.025, 0.975])
    assert ends == pytest.approx((low, high), rel=0.02)


def test_pairing_takes_out_what_the_samples_have_in_common() -> None:
    random = np.random.default_rng(3)
    common = random.normal(0, 10, 300)
    a, b = common + 0.5 + random.normal(0, 0.5, 300), common + random.normal(0, 0.5, 300)
    found = paired(a.tolist(), b.tolist(), seed=1)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.interval is not None
    assert found.interval[1] - found.interval[0] < 0.3
    assert found.p_value is not None
    assert found.p_value < 0.01
    other_way = paired(b.tolist(), a.tolist(), seed=1)
    assert other_way.interval == pytest.approx((-found.interval[1], -found.interval[0]))


def test_equal_systems_do_not_differ() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    found = paired(values, values, seed=1)
    assert (found.value, found.interval, found.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_the_seed_decides() -> None:
    values = [0.0, 1.0, 4.0, 2.0]
    assert interval(values, seed=1) == interval(values, seed=1)
    assert interval(values, seed=1, resamples=50) != interval(values, seed=2, resamples=50)


def test_of_one_sample_nothing_is_said() -> None:
    assert interval([1.0], seed=1) is None
    assert paired([1.0], [0.0], seed=1).interval is None


def test_other_samples_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="not of the same samples"):
        paired_of(np.ones((3, 2)), np.ones((4, 2)), mean, seed=1)
