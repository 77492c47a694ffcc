"""Confidence intervals by the bootstrap: samples drawn anew with replacement, the same for all that is compared.

Every figure is a function of the sum, over samples, of a few numbers a sample: an accuracy of (right, 1), BLEU of its
counts of n-grams and lengths. So a draw is a vector of how often each sample was taken, times the matrix of those
numbers; any figure is resampled exactly, also one that is no mean of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Aggregate = Callable[[Array], Array]

RESAMPLES = 1000
LEVEL = 0.95
_AT_ONCE = 1 << 22  # counts held at a time, 32 MB


@dataclass(frozen=True)
class Difference:
    """`a` less `b`: `value`, its `interval`, and the two-sided `p_value` of there being none (None where unknown)."""

    value: float
    interval: tuple[float, float] | None
    p_value: float | None


def mean(sums: Array) -> Array:
    """Aggregate sums of shape (..., 2), of values and of samples, to the mean."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1], dtype=np.float64)


def as_statistics(values: Sequence[float]) -> Array:
    """Return the statistics of a mean, of shape (samples, 2): each value, and 1."""
    column = np.asarray(values, dtype=np.float64)
    return np.stack([column, np.ones_like(column)], axis=1)


def interval(
    values: Sequence[float], seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float] | None:
    """Return the percentile interval of the mean of `values`; None for fewer than two."""
    return interval_of(as_statistics(values), mean, seed, resamples, level)


def paired(
    a: Sequence[float], b: Sequence[float], seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> Difference:
    """Compare the means of two systems on the same samples, in the same order."""
    return paired_of(as_statistics(a), as_statistics(b), mean, seed, resamples, level)


def interval_of(
    statistics: Array, aggregate: Aggregate, seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float] | None:
    """Return the percentile interval of a figure.

    Args:
        statistics: Of shape (samples, k): what each sample adds to the sums.
        aggregate: From sums of shape (..., k) to the figure, of shape (...).
        seed: Decides the draws.
        resamples: How many draws.
        level: The interval's level, 0.95 for 95%.

    Returns:
        Its ends; None for fewer than two samples, of which nothing can be said.
    """
    if len(statistics) < 2:
        return None
    (sums,) = _draws([statistics], seed, resamples)
    return _ends(aggregate(sums), level)


def paired_of(
    a: Array, b: Array, aggregate: Aggregate, seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> Difference:
    """Compare a figure of two systems on the same samples: each draw takes the same samples of both.

    The p-value is twice the smaller share of draws in which the difference is not above, or not below, zero, with one
    draw added to each side so that it is never 0 (Davison and Hinkley, Bootstrap Methods, 1997, section 4.4).

    Raises:
        ValueError: If the numbers of samples differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"statistics of shapes {a.shape} and {b.shape} are not of the same samples")
    value = float(aggregate(a.sum(axis=0)) - aggregate(b.sum(axis=0)))
    if len(a) < 2:
        return Difference(value, None, None)
    one, other = _draws([a, b], seed, resamples)
    differences = aggregate(one) - aggregate(other)
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return Difference(value, None, None)
    smaller = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return Difference(value, _ends(differences, level), _p(smaller, len(differences)))


def _p(smaller: int, draws: int) -> float:
    return min(1.0, 2 * (smaller + 1) / (draws + 1))


def _ends(figures: Array, level: float) -> tuple[float, float] | None:
    known = figures[np.isfinite(figures)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _draws(each: Sequence[Array], seed: int, resamples: int) -> list[Array]:
    """Return the sums of each system in every draw, of shape (resamples, k)."""
    samples = len(each[0])
    random = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // samples)
    sums: list[list[Array]] = [[] for _ in each]
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        taken = random.multinomial(samples, np.full(samples, 1 / samples), size=count).astype(np.float64)
        for found, statistics in zip(sums, each, strict=True):
            found.append(taken @ statistics)
    return [np.concatenate(found) for found in sums]
