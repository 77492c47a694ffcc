"""The realised shares of a set, as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posttrain.data.summary import SetSummary

if TYPE_CHECKING:
    from rich.table import Table


def mixture_table(name: str, rows: SetSummary) -> Table:
    """Return what each source gave to a set, repeats counted, and its shares of the rows to train on and of answers.

    The share of answers is by characters; that of trained tokens is known when the rows are tokenised.
    """
    from rich.table import Table

    table = Table(
        title=f"{name}: {rows.train:,} rows to train, {rows.validation:,} held out",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("source", overflow="fold")
    for column in ("read", "rejected", "not sampled", "train", "held out", "rows", "answers"):
        table.add_column(column, justify="right")
    all_rows = max(1, rows.train)
    all_answers = max(1, sum(source.answer_chars for source in rows.sources))
    for source in rows.sources:
        table.add_row(
            source.name,
            f"{source.read:,}",
            f"{sum(count for _, count in source.reasons()):,}",
            f"{source.sampled_out:,}",
            f"{source.train + source.train_repeats:,}",
            f"{source.validation:,}",
            f"{(source.train + source.train_repeats) / all_rows:.1%}",
            f"{source.answer_chars / all_answers:.1%}",
        )
    return table
