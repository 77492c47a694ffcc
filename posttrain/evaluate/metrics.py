"""What a task reports: its metrics, and how a metric follows from what each sample adds to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posttrain.evaluate.bootstrap import Aggregate, Array, Difference, interval_of, paired_of

PERCENT = "%"


@dataclass(frozen=True)
class Metric:
    """A figure of a task. Those in percent run from 0 to 100. `primary` is the one that a card's table shows."""

    name: str
    unit: str
    higher_is_better: bool = True
    primary: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in `results.json`."""
        return {"unit": self.unit, "higher_is_better": self.higher_is_better, "primary": self.primary}


@dataclass(frozen=True)
class Measured:
    """A metric before it is summed: `statistics` of shape (samples, k), and the function of their sum that it is."""

    metric: Metric
    statistics: Array
    aggregate: Aggregate

    @property
    def value(self) -> float:
        """The figure over all samples."""
        return float(self.aggregate(self.statistics.sum(axis=0)))

    def interval(self, seed: int, resamples: int) -> tuple[float, float] | None:
        """Return its 95% interval, None for fewer than two samples."""
        return interval_of(self.statistics, self.aggregate, seed, resamples)

    def less(self, other: Measured, seed: int, resamples: int) -> Difference:
        """Compare it with the same metric of another system on the same samples."""
        return paired_of(self.statistics, other.statistics, self.aggregate, seed, resamples)


def ratio(top: int, bottom: int, factor: float = 1.0) -> Aggregate:
    """Return the aggregate that divides one sum by another."""

    def aggregate(sums: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(factor * sums[..., top] / sums[..., bottom], dtype=np.float64)

    return aggregate


def transformed(inner: Aggregate, function: Callable[[Array], Array]) -> Aggregate:
    """Return the aggregate that applies a function to another's result."""
    return lambda sums: np.asarray(function(inner(sums)), dtype=np.float64)


def share(metric: Metric, values: Sequence[float]) -> Measured:
    """Return a mean of values from 0 to 1, in percent."""
    column = np.asarray(values, dtype=np.float64)
    return Measured(metric, np.stack([column, np.ones_like(column)], axis=1), ratio(0, 1, 100.0))


def shares(metrics: Sequence[Metric], scores: Sequence[Mapping[str, float]]) -> list[Measured]:
    """Return a percentage for each metric whose values the samples' scores hold under its name."""
    return [share(metric, [float(score[metric.name]) for score in scores]) for metric in metrics]
