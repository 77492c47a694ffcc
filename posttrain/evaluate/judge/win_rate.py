"""How often one model's answers are preferred to another's, when each pair is judged in both orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from posttrain.evaluate.bootstrap import LEVEL, RESAMPLES
from posttrain.evaluate.judge.verdicts import Verdict
from posttrain.evaluate.metrics import PERCENT, Measured, Metric, ratio
from posttrain.evaluate.results import number

WIN_RATE = Metric("win_rate", PERCENT)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How often model `a` is preferred to model `b`.

    Attributes:
        a: The model that `win_rate` is of.
        b: The other.
        win_rate: In percent, ties counted half; its samples are the questions, in the order of their ids.
        wins: Turns of which both orders prefer the answer of `a`.
        ties: Turns of which the orders disagree, or one of them calls it a tie.
        losses: Turns of which both orders prefer the answer of `b`.
        unjudged: Turns without a verdict in at least one order, which count nowhere else.
        wilson: Wilson's interval of the win rate in percent, where every judged question is won or lost whole.
    """

    a: str
    b: str
    win_rate: Measured
    wins: int
    ties: int
    losses: int
    unjudged: int
    wilson: tuple[float, float] | None

    def as_json(self, seed: int, resamples: int = RESAMPLES) -> dict[str, Any]:
        """Return it as in `results.json`, with the bootstrap interval over questions; None for what is not known."""
        judged = self.wins + self.ties + self.losses > 0
        interval = self.win_rate.interval(seed, resamples) if judged else None
        return {
            "a": self.a,
            "b": self.b,
            "metric": self.win_rate.metric.name,
            "value": number(self.win_rate.value) if judged else None,
            "interval": None if interval is None else [number(end) for end in interval],
            "wilson": None if self.wilson is None else [number(end) for end in self.wilson],
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            "unjudged": self.unjudged,
        }


def outcome(verdicts: Sequence[Verdict], model: str) -> float | None:
    """Return 1 if both orders prefer `model`, 0 if both prefer the other, 0.5 otherwise; None if one has no verdict.

    Args:
        verdicts: The two of one pair of answers, in either order.
        model: One of the two models.

    Raises:
        ValueError: They are not one verdict of each order of the same two models.
    """
    if len(verdicts) != 2 or verdicts[0].models != verdicts[1].models[::-1] or model not in verdicts[0].models:
        raise ValueError(f"{[verdict.models for verdict in verdicts]}: not both orders of a pair with {model}")
    first, second = (verdict.points(model) for verdict in verdicts)
    if first is None or second is None:
        return None
    return first if first == second else 0.5


def compare(a: str, b: str, outcomes: Mapping[str, Sequence[float | None]], metric: Metric = WIN_RATE) -> Comparison:
    """Sum up outcomes of `a` against `b`.

    A question's value is the mean of its turns; it counts only if all of its turns have an outcome.

    Args:
        a: The model whose wins are 1.
        b: The other.
        outcomes: Of each turn, by question, in the order in which questions are to be resampled.
        metric: What the win rate is called.
    """
    rows = [
        (sum(turns), float(len(turns))) if (turns := _whole(found)) is not None else (0.0, 0.0)
        for found in outcomes.values()
    ]
    flat = [value for found in outcomes.values() for value in found]
    return Comparison(
        a=a,
        b=b,
        win_rate=measured(metric, rows, factor=100.0),
        wins=flat.count(1.0),
        ties=flat.count(0.5),
        losses=flat.count(0.0),
        unjudged=flat.count(None),
        wilson=_wilson_of([value / count for value, count in rows if count]),
    )


def measured(metric: Metric, rows: Sequence[tuple[float, float]], factor: float = 1.0) -> Measured:
    """Return the mean of question means: each row is the sum of a question's turns and their number, or zeros."""
    import numpy as np

    statistics = np.array([(total / count, 1.0) if count else (0.0, 0.0) for total, count in rows], dtype=np.float64)
    return Measured(metric, statistics.reshape(-1, 2), ratio(0, 1, factor))


def wilson(wins: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's score interval of a share, from 0 to 1 (Wilson 1927, without continuity correction).

    Raises:
        ValueError: There are no trials, or more wins than trials.
    """
    if not 0 <= wins <= trials or trials < 1:
        raise ValueError(f"{wins} wins of {trials}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = wins / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * (share * (1 - share) / trials + z**2 / (4 * trials**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def _whole(outcomes: Sequence[float | None]) -> list[float] | None:
    found = [value for value in outcomes if value is not None]
    return found if found and len(found) == len(outcomes) else None


def _wilson_of(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the interval in percent, where every value is 0 or 1."""
    if not values or any(value not in (0.0, 1.0) for value in values):
        return None
    low, high = wilson(int(sum(values)), len(values))
    return 100 * low, 100 * high
