"""The tables of the report: what is worked out of the measured rows, written out as cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from posttrain.data.report.gather import Measures
from posttrain.data.report.words import count, percent, readable_language

if TYPE_CHECKING:
    import numpy as np

_TURNS = ((1, 1, "1"), (2, 2, "2"), (3, 3, "3"), (4, 4, "4"), (5, 8, "5–8"), (9, None, "9 or more"))
_LANGUAGES = 10  # columns; the others are added up
_DARKEST = 40  # percent of the accent in the cell with the largest share


def names_in(rows: Measures, order: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Return each source that has rows, in the order of the recipe, with the places of its rows."""
    import numpy as np

    known = [name for name in order if name in rows.sources]
    known += [name for name in rows.sources if name not in known]
    return [(name, np.flatnonzero(rows.source == rows.sources.index(name))) for name in known]


def shares(rows: Measures, order: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return for each source: rows, their share, characters trained on, their share, and the mean a row."""
    trained = rows.trained
    total = int(trained.sum())
    made = []
    for name, places in names_in(rows, order):
        characters = int(trained[places].sum())
        cells = [count(len(places)), percent(len(places), len(rows.source)), count(characters)]
        made.append((name, [*cells, percent(characters, total), count(characters / len(places))]))
    return made


def stacks(rows: Measures, order: Sequence[str]) -> list[tuple[str, list[tuple[str, str, float]]]]:
    """Return the two bars of shares, of rows and of characters: each source's name, share in words, and width."""
    trained = rows.trained
    made = []
    for label, weights in (("Rows", trained * 0 + 1), ("Characters", trained)):
        total = int(weights.sum())
        pieces = []
        for name, places in names_in(rows, order):
            part = int(weights[places].sum())
            pieces.append((name, percent(part, total), round(100 * part / max(total, 1), 3)))
        made.append((label, pieces))
    return made


def lengths(rows: Measures, order: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return for each source, in characters a row: user median and 95th percentile, answer median, mean, 95%, most."""
    import numpy as np

    made = []
    for name, places in names_in(rows, order):
        user, answer = rows.user[places], rows.answer[places]
        values = [*np.percentile(user, (50, 95)), np.median(answer), answer.mean(), np.percentile(answer, 95)]
        made.append((name, [count(value) for value in (*values, answer.max())]))
    return made


def languages(rows: Measures, order: Sequence[str]) -> dict[str, Any]:
    """Return the shares of the languages, a source each, with all sources last."""
    import numpy as np

    totals = np.bincount(rows.language, minlength=len(rows.languages))
    ranked = sorted(range(len(rows.languages)), key=lambda code: (-totals[code], rows.languages[code]))
    head, rest = ranked[:_LANGUAGES], ranked[_LANGUAGES:]

    def numbers(places: np.ndarray) -> list[int]:
        counted = np.bincount(rows.language[places], minlength=len(rows.languages))
        several = [int(counted[rest].sum())] if rest else []
        return [int(counted[code]) for code in head] + several

    headings = [readable_language(rows.languages[code]) for code in head] + ([f"{len(rest)} others"] if rest else [])
    return _heat(headings, rows, order, numbers)


def turns(rows: Measures, order: Sequence[str]) -> dict[str, Any]:
    """Return the shares of rows by their number of user turns, a source each, with all sources last."""

    def numbers(places: np.ndarray) -> list[int]:
        several = rows.turns[places]
        return [int(((several >= least) & (several <= (most or several.max()))).sum()) for least, most, _ in _TURNS]

    return _heat([label for _, _, label in _TURNS], rows, order, numbers)


def _heat(headings: list[str], rows: Measures, order: Sequence[str], numbers: Any) -> dict[str, Any]:
    import numpy as np

    def cells(places: np.ndarray) -> list[tuple[str, int]]:
        return [
            (percent(number, len(places)) if number else "–", -(-number * _DARKEST // len(places)))
            for number in numbers(places)
        ]

    table = [{"name": name, "cells": cells(places), "total": False} for name, places in names_in(rows, order)]
    if len(table) > 1:
        table.append({"name": "All", "cells": cells(np.arange(len(rows.source))), "total": True})
    return {"headings": headings, "rows": table}


def length_bias(chosen: np.ndarray, rejected: np.ndarray) -> dict[str, float]:
    """Say in numbers how much longer chosen answers are than rejected ones, both int arrays in characters.

    Returns:
        `longer` and `equal`, shares of the pairs from 0 to 1 whose chosen answer is the longer one, or as long;
        `mean`, the mean of chosen minus rejected in characters; `ratio`, the median of chosen over rejected.
    """
    import numpy as np

    difference = chosen.astype("int64") - rejected
    return {
        "longer": float((difference > 0).mean()),
        "equal": float((difference == 0).mean()),
        "mean": float(difference.mean()),
        "ratio": float(np.median(np.maximum(chosen, 1) / np.maximum(rejected, 1))),
    }


def bias_table(rows: Measures, order: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return for each source: pairs, how many with the longer answer chosen, and the figures of `length_bias`."""
    import numpy as np

    made = []
    for name, places in names_in(rows, order):
        bias = length_bias(rows.answer[places], rows.rejected[places])
        margins = rows.margin[places]
        stated = margins[~np.isnan(margins)]
        made.append(
            (
                name,
                [
                    count(len(places)),
                    percent(bias["longer"], 1),
                    percent(bias["equal"], 1),
                    signed(bias["mean"]),
                    f"{bias['ratio']:.2f}",
                    count(len(margins) - len(stated)),
                    f"{stated.mean():.2f}" if len(stated) else "–",
                ],
            )
        )
    return made


def signed(number: float) -> str:
    """Write a whole number with its sign: `+120`, `−7`, `0`."""
    whole = round(number)
    return f"{'+' if whole > 0 else '−' if whole < 0 else ''}{count(abs(whole))}"
