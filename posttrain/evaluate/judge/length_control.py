"""The win rate that two models would have if their answers were equally long: a logistic regression on the lengths.

After Dubois, Galambosi, Liang and Hashimoto, "Length-Controlled AlpacaEval: A Simple Way to Debias Automatic
Evaluators" (arXiv 2404.04475). For each instruction x the probability that the model's answer is preferred to the
reference is fitted as

    p(x) = sigmoid(theta + phi * tanh(d(x) / s) + psi * gamma(x))

where d(x) is the length of the model's answer less that of the reference's in characters, s the sample standard
deviation of d over the instructions, gamma(x) the instruction's difficulty where that is known, and theta, phi and psi
stand for the differences between the two models that the paper writes as such. The length-controlled win rate is the
mean over instructions of sigmoid(theta + psi * gamma(x)), in percent: the length term is left out, everything else
stays. It is 50 for a model against itself, and the rates of two models against each other add up to 100.

What differs from the published tool (`length_controlled_v1`):

- Verdicts are 1, 0.5 or 0 after asking in both orders, where the tool weighs the judge's token probabilities and asks
  once, in a random order.
- The tool adds judged pairs of the reference and of verbose and terse versions of it, weighted 0.2, which tie phi to
  what the judge makes of length alone; and it has gamma from a joint fit over its whole leaderboard. Both belong to one
  judge and one reference. Here phi is fitted on this model's pairs alone, and the term with gamma is there only if the
  reference file has a column `instruction_difficulty`.
- The tool chooses the strength of an L1 penalty on all coefficients by cross-validation. Here the penalty is fixed: a
  normal prior on the coefficients with the variances below, wide enough not to be felt at a few hundred instructions
  (a rate moves by less than 0.1 points) and much wider for phi. Where the data cannot tell length from quality,
  because the same model has both the longer answers and the wins throughout, length is given the credit: a rate near
  50 then means that nothing has been shown.

So the figure is comparable between models judged here with the same judge and reference, not with the leaderboard.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posttrain.evaluate.bootstrap import Aggregate, Array
from posttrain.evaluate.metrics import Measured, Metric

VARIANCE = 10.0  # of the prior on theta and psi, in squared log-odds
LENGTH_VARIANCE = 1000.0  # of that on phi
_STEPS = 200
_HALVINGS = 60
_DECREMENT = 1e-10  # of the objective, in nats: at this the next Newton step changes nothing that is shown


def length_controlled(
    metric: Metric, verdicts: Sequence[float | None], differences: Sequence[int], difficulty: Sequence[float] | None
) -> Measured:
    """Return the length-controlled win rate over instructions, in percent.

    Its `statistics` have shape (instructions, columns * instructions): each row holds its own instruction's columns
    `(1, verdict, length, difficulty)` in its own block and zeros elsewhere, so that from their sum over any draw of
    instructions each can be told apart with how often it was drawn. The deviation s is that of all instructions judged,
    in every draw. For AlpacaEval's 805 instructions that is 16 MB, and grows with the square of their number.

    Args:
        metric: What it is called.
        verdicts: 1 where the model's answer is preferred, 0 where the reference is, 0.5 for neither; None if unjudged.
        differences: Characters of the model's answer less those of the reference's.
        difficulty: gamma, or None.
    """
    instructions = len(verdicts)
    judged = np.array([verdict is not None for verdict in verdicts])
    columns = [judged.astype(np.float64), np.array([verdict or 0.0 for verdict in verdicts], dtype=np.float64)]
    columns.append(np.where(judged, np.tanh(_in_deviations(differences, judged)), 0.0))
    if difficulty is not None:
        columns.append(np.where(judged, np.asarray(difficulty, dtype=np.float64), 0.0))
    statistics = np.zeros((instructions, instructions, len(columns)))
    statistics[np.arange(instructions), np.arange(instructions)] = np.stack(columns, axis=1)
    return Measured(metric, statistics.reshape(instructions, -1), _rate(len(columns)))


def coefficients(verdicts: Array, weights: Array, terms: Array) -> Array:
    """Fit the regression to several weightings of instructions at once, by Newton's method with step halving.

    Args:
        verdicts: From 0 to 1, of shape (..., instructions).
        weights: How often each instruction counts, of the same shape.
        terms: Values of the terms: 1 for theta first, that of phi second; of shape (..., instructions, terms).

    Returns:
        The coefficients, of shape (..., terms): where the posterior density is greatest, which is one place.

    Raises:
        ArithmeticError: It does not converge, as with values that are no numbers.
    """
    variances = np.full(terms.shape[-1], VARIANCE)
    variances[1] = LENGTH_VARIANCE
    flipped = np.swapaxes(terms, -1, -2)

    def objective(at: Array) -> Array:
        odds = _odds(terms, at)
        losses = weights * (np.logaddexp(0.0, odds) - verdicts * odds)
        return np.asarray(losses.sum(axis=-1) + (at**2 / (2 * variances)).sum(axis=-1), dtype=np.float64)

    found: Array = np.zeros((*verdicts.shape[:-1], terms.shape[-1]))
    value = objective(found)
    for _ in range(_STEPS):
        chance = _sigmoid(_odds(terms, found))
        slope = (flipped @ (weights * (chance - verdicts))[..., None])[..., 0] + found / variances
        curvature = flipped @ (terms * (weights * chance * (1 - chance))[..., None]) + np.diag(1 / variances)
        step = np.linalg.solve(curvature, slope[..., None])[..., 0]
        decrement = (slope * step).sum(axis=-1)
        if not np.isfinite(decrement).all():
            break
        size = np.ones_like(decrement)
        for _ in range(_HALVINGS):
            nearer = found - size[..., None] * step
            reached = objective(nearer)
            # A full step overshoots where verdicts follow length without exception.
            over = (decrement > _DECREMENT) & (reached > value - size * decrement / 4)
            if not over.any():
                break
            size = np.where(over, size / 2, size)
        found, value = nearer, reached
        if (decrement <= _DECREMENT).all():
            return found
    raise ArithmeticError("the regression on lengths does not converge")


def _rate(columns: int) -> Aggregate:
    """Return the aggregate from sums of `length_controlled`'s statistics to the rate."""

    def aggregate(sums: Array) -> Array:
        blocks = sums.reshape(*sums.shape[:-1], -1, columns)
        drawn = blocks[..., 0]
        values = blocks[..., 1:] / np.maximum(drawn, 1.0)[..., None]
        terms = np.concatenate([np.ones_like(values[..., :1]), values[..., 1:]], axis=-1)
        found = coefficients(values[..., 0], drawn, terms)
        found[..., 1] = 0.0
        with np.errstate(invalid="ignore"):
            chances = (drawn * _sigmoid(_odds(terms, found))).sum(axis=-1) / drawn.sum(axis=-1)
        return np.asarray(100 * chances, dtype=np.float64)

    return aggregate


def _in_deviations(differences: Sequence[int], judged: Array) -> Array:
    """Return the differences divided by their sample standard deviation; 0 where they do not differ among themselves.

    As in the published tool nothing is subtracted: 0 has to stay 0.
    """
    lengths = np.asarray(differences, dtype=np.float64)
    deviation = lengths[judged].std(ddof=1) if judged.sum() > 1 else 0.0
    return np.asarray(lengths / deviation if deviation > 0 else np.zeros_like(lengths), dtype=np.float64)


def _odds(terms: Array, found: Array) -> Array:
    return np.asarray((terms @ found[..., None])[..., 0], dtype=np.float64)


def _sigmoid(odds: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0.0, -odds)), dtype=np.float64)
