"""How many tokens and hours the rows that models write will take, from a few rows written for the purpose."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.errors import UserError

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe

ROWS = 50  # of each entry, unless the command says otherwise


@dataclass(frozen=True)
class Estimate:
    """What an entry of `generate` will take.

    Attributes:
        name: The entry's.
        probed: Rows that were written to find out, and `failed` of them that were lost.
        failed: Of the rows probed.
        rows: All rows, or None where their number is not known before they are read.
        requests: A row.
        prompt_tokens: Read by the models for a row.
        completion_tokens: Written by the models for a row.
        tokens_per_second: Written in all, as measured. A probe is short, so a server that batches does better later.
    """

    name: str
    probed: int
    failed: int
    rows: int | None
    requests: float
    prompt_tokens: float
    completion_tokens: float
    tokens_per_second: float

    @property
    def hours(self) -> float | None:
        """Hours for all rows at the measured rate."""
        if self.rows is None or self.tokens_per_second <= 0:
            return None
        return self.rows * self.completion_tokens / self.tokens_per_second / 3600


def probe(recipe: Recipe, rows: int = ROWS) -> list[Estimate]:
    """Have the models of a recipe write the first rows of every entry, into a folder that is removed, and scale up.

    Raises:
        UserError: The recipe has no entries, or they or their servers are not in order.
        Interrupted: A signal stopped it.
    """
    from posttrain.data.generate.build import Made, Models, build
    from posttrain.data.generate.inputs import input_total

    if not recipe.generate:
        raise UserError("generate: the recipe has no entries, so there is nothing to probe")
    # An entry that goes on from another one has that one's rows.
    entries = [replace(entry, max_rows=min(rows, entry.max_rows or rows)) for entry in recipe.generate]
    models = Models(recipe.teacher, recipe.judge, recipe.reward)
    with tempfile.TemporaryDirectory(prefix="posttrain-probe-") as folder:
        made = build(entries, models, recipe.seed, Path(folder) / "rows", Path(folder) / "answers")
    totals: dict[str, int | None] = {}
    for entry in recipe.generate:
        known = totals[entry.rows_from] if entry.rows_from is not None else input_total(entry, {})
        totals[entry.name] = known if entry.max_rows is None or known is None else min(known, entry.max_rows)

    def estimate(name: str, entry: Made) -> Estimate:
        written, asked = entry.summary.rows, entry.asked
        a_row = max(1, written)
        return Estimate(
            name=name,
            probed=written,
            failed=entry.summary.failed,
            rows=totals[name],
            requests=asked["answers"] / a_row,
            prompt_tokens=asked["prompt_tokens"] / a_row,
            completion_tokens=asked["completion_tokens"] / a_row,
            tokens_per_second=asked["completion_tokens"] / max(asked["seconds"], 1e-9),
        )

    return [estimate(name, entry) for name, entry in made.items()]


def table(estimates: Sequence[Estimate], gpus: int) -> list[str]:
    """Return the estimates as lines: a row each, tokens in units of a million, and the sum.

    Args:
        estimates: What `probe` gave.
        gpus: How many GPUs the server runs on.
    """
    head = ("entry", "rows", "requests", "tokens in", "tokens out", "tokens/s", "hours", "GPU hours")
    lines = [head]
    for each in estimates:
        known = each.rows is not None
        rows = each.rows or 0
        lines.append(
            (
                each.name,
                f"{rows:,}" if known else "not known",
                _scaled(rows * each.requests) if known else f"{each.requests:.1f}/row",
                _scaled(rows * each.prompt_tokens) if known else f"{each.prompt_tokens:,.0f}/row",
                _scaled(rows * each.completion_tokens) if known else f"{each.completion_tokens:,.0f}/row",
                f"{each.tokens_per_second:,.0f}",
                "-" if each.hours is None else _hours(each.hours),
                "-" if each.hours is None else _hours(each.hours * gpus),
            )
        )
    total = sum(each.hours or 0.0 for each in estimates)
    lines.append(("all", "", "", "", "", "", _hours(total), _hours(total * gpus)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return [
        "  ".join(
            _cell(text, width, column) for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def _scaled(number: float) -> str:
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.1f}{unit}"
    return f"{number:.0f}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 0.1 else f"{hours * 60:.1f} min"
