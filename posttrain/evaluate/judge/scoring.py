"""What verdicts come to: MT-Bench's scores, win rates, AlpacaEval's length-controlled win rate. Needs no judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.data.rows import reason_kind
from posttrain.evaluate.bootstrap import RESAMPLES
from posttrain.evaluate.judge.length_control import length_controlled
from posttrain.evaluate.judge.questions import in_order
from posttrain.evaluate.judge.verdicts import Verdict
from posttrain.evaluate.judge.win_rate import WIN_RATE, Comparison, compare, measured, outcome
from posttrain.evaluate.metrics import PERCENT, Measured, Metric

REFERENCE = "reference"  # what verdicts call the model whose answers come with AlpacaEval's instructions
POINTS = "score 1-10"
SCORE = Metric("score", POINTS, primary=True)
LC_WIN_RATE = Metric("lc_win_rate", PERCENT, primary=True)


@dataclass(frozen=True)
class Judged:
    """What a judge's verdicts on a task come to.

    Attributes:
        measured: The metrics of each model, over the same questions in the same order for all; a metric without a
            single verdict is left out.
        comparisons: Of each model with the one it was compared with, where there is such a one.
        verdicts: How many there should be of each model; a pair's two orders are two.
        unjudged: How many of them are none, by model and reason.
    """

    measured: dict[str, list[Measured]] = field(default_factory=dict)
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    unjudged: dict[str, dict[str, int]] = field(default_factory=dict)

    def as_json(self, seed: int, resamples: int = RESAMPLES) -> dict[str, Any]:
        """Return what figures alone do not say as plain JSON: counts, and each comparison with wins, ties and losses.

        Args:
            seed: Of the bootstrap.
            resamples: Its draws.
        """
        return {
            "verdicts": self.verdicts,
            "unjudged": self.unjudged,
            "comparisons": [pair.as_json(seed, resamples) for pair in self.comparisons.values()],
        }


def score_mt_bench(verdicts: Sequence[Verdict], against: str | None = None) -> Judged:
    """Sum up MT-Bench.

    `score` is the mean over questions of the mean of their turns; a question counts only if all of its turns have been
    graded. `score_turn_1` and so on are means over the questions whose turn has been, `score_CATEGORY` over those of a
    category. `win_rate` is that over the model `against`, see `compare`.

    Args:
        verdicts: Of all models and questions, in any order.
        against: The model that the others were compared with.
    """
    grades = [verdict for verdict in verdicts if verdict.kind == "grade"]
    questions = in_order(list({verdict.question for verdict in grades}))
    categories = {verdict.question: verdict.category for verdict in grades}
    turns = sorted({verdict.turn for verdict in grades})
    pairs = _pairs([verdict for verdict in verdicts if verdict.kind == "compare"], against, questions)
    found = Judged(verdicts=_counts(verdicts, against), unjudged=_unjudged(verdicts, against), comparisons=pairs)
    for model in sorted({verdict.models[0] for verdict in grades}):
        given: dict[str, dict[int, float | None]] = {question: {} for question in questions}
        for verdict in grades:
            if verdict.models == (model,):
                given[verdict.question][verdict.turn] = verdict.score
        rows = {question: _row(list(given[question].values())) for question in questions}
        all_of = [measured(SCORE, list(rows.values()))]
        for turn in turns if len(turns) > 1 else []:
            of_turn = [_row([scores[turn]] if turn in scores else []) for scores in given.values()]
            all_of.append(measured(Metric(f"score_turn_{turn}", POINTS), of_turn))
        for category in sorted({name for name in categories.values() if name is not None}):
            of_category = [row if categories[name] == category else (0.0, 0.0) for name, row in rows.items()]
            all_of.append(measured(Metric(f"score_{category}", POINTS), of_category))
        if model in pairs:
            all_of.append(pairs[model].win_rate)
        found.measured[model] = _known(all_of)
    return found


def score_alpaca_eval(verdicts: Sequence[Verdict]) -> Judged:
    """Sum up AlpacaEval: `lc_win_rate`, see `length_controlled`, and `win_rate` over the reference's answers.

    Args:
        verdicts: Of all models and questions, in any order.
    """
    questions = in_order(list({verdict.question for verdict in verdicts}))
    pairs = _pairs(verdicts, REFERENCE, questions)
    found = Judged(verdicts=_counts(verdicts, REFERENCE), unjudged=_unjudged(verdicts, REFERENCE), comparisons=pairs)
    for model, pair in pairs.items():
        outcomes, lengths, difficulty = [], [], []
        both = _both_orders(verdict for verdict in verdicts if model in verdict.models)
        for question in questions:
            orders = both[question, 1]
            outcomes.append(outcome(orders, model))
            by_model = dict(zip(orders[0].models, orders[0].lengths, strict=True))
            lengths.append(by_model[model] - by_model[REFERENCE])
            difficulty.append(orders[0].difficulty)
        known = [value for value in difficulty if value is not None]
        controlled = length_controlled(LC_WIN_RATE, outcomes, lengths, known if len(known) == len(difficulty) else None)
        judged = any(value is not None for value in outcomes)
        found.measured[model] = [controlled, pair.win_rate] if judged else []
    return found


def metrics_of_mt_bench(categories: Iterable[str | None], turns: int, against: str | None) -> tuple[Metric, ...]:
    """Return what `score_mt_bench` can report, the primary metric first."""
    named = [Metric(f"score_{category}", POINTS) for category in sorted({c for c in categories if c is not None})]
    by_turn = [Metric(f"score_turn_{turn}", POINTS) for turn in range(1, turns + 1)] if turns > 1 else []
    return (SCORE, *by_turn, *named, *([WIN_RATE] if against is not None else []))


def metrics_of_alpaca_eval() -> tuple[Metric, ...]:
    """Return what `score_alpaca_eval` can report, the primary metric first."""
    return (LC_WIN_RATE, WIN_RATE)


def _pairs(verdicts: Sequence[Verdict], against: str | None, questions: Sequence[str]) -> dict[str, Comparison]:
    if against is None:
        return {}
    found = {}
    for model in sorted({name for verdict in verdicts for name in verdict.models} - {against}):
        both = _both_orders(verdict for verdict in verdicts if model in verdict.models)
        outcomes: dict[str, list[float | None]] = {question: [] for question in questions}
        for (question, _), orders in sorted(both.items()):
            outcomes[question].append(outcome(orders, model))
        found[model] = compare(model, against, outcomes)
    return found


def _both_orders(verdicts: Iterable[Verdict]) -> dict[tuple[str, int], list[Verdict]]:
    found: dict[tuple[str, int], list[Verdict]] = {}
    for verdict in verdicts:
        found.setdefault((verdict.question, verdict.turn), []).append(verdict)
    return found


def _row(scores: Sequence[float | None]) -> tuple[float, float]:
    """Return a sum and a number; zeros where a score is missing."""
    known = [score for score in scores if score is not None]
    return (sum(known), float(len(known))) if len(known) == len(scores) else (0.0, 0.0)


def _known(measured: Sequence[Measured]) -> list[Measured]:
    return [one for one in measured if one.statistics[:, 1].any()]


def _counts(verdicts: Sequence[Verdict], against: str | None) -> dict[str, int]:
    counted = Counter(name for verdict in verdicts for name in _subjects(verdict, against))
    return dict(sorted(counted.items()))


def _unjudged(verdicts: Sequence[Verdict], against: str | None) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        if verdict.unjudged is not None:
            for name in _subjects(verdict, against):
                found.setdefault(name, Counter())[reason_kind(verdict.unjudged)] += 1
    return {name: dict(sorted(counter.items())) for name, counter in sorted(found.items())}


def _subjects(verdict: Verdict, against: str | None) -> list[str]:
    """Return whose verdict it is: of a comparison that of the model which is compared with `against`."""
    return [name for name in verdict.models if verdict.kind == "grade" or name != against]
