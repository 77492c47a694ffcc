"""The rows: whether every one fits `max_length`, and how many tokens of each source are trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.preflight.findings import Finding, error, note, warning
from posttrain.train.dataset import COUNTS, TOO_LONG, Tally

if TYPE_CHECKING:
    from posttrain.preflight.subject import Subject
    from posttrain.train.parts import Settings

SAMPLE = 2000  # rows of a set that are encoded where its tokens are not there yet; from all over it
_AT_ONCE = 100


def check(subject: Subject) -> Iterator[Finding]:
    """Count what tokenising gave, or gives on a sample."""
    recipe = subject.recipe
    for kind, section, stage in (
        ("sft", recipe.sft, "tokenize-sft"),
        ("preference", recipe.dpo, "tokenize-preference"),
    ):
        if section is None or stage not in {each.name for each in subject.stages}:
            continue
        tokens = subject.complete(stage)
        if tokens is not None:
            counts = json.loads((tokens / COUNTS).read_text(encoding="utf-8"))
            yield from describe(kind, Tally.from_json(counts["train"]), section.max_length)
            continue
        data = subject.complete("data")
        if data is None:
            yield note(f"data.{kind}: the rows are not built yet, so their lengths and tokens were not counted")
            continue
        yield from _sampled(subject, kind, section, data)


def _sampled(subject: Subject, kind: str, section: Any, data: Path) -> Iterator[Finding]:
    from posttrain.chat import Encoder
    from posttrain.train.parts import Settings

    try:
        equipped = subject.equipped
    except UserError:  # the template has a finding of its own
        return
    if equipped is None:
        yield note(f"data.{kind}: the tokenizer is not there yet, so the tokens of the rows were not counted")
        return
    settings = Settings(kind, section.max_length, getattr(section, "loss_on", "assistant"))
    tally, total = sample(data / kind / "train.parquet", settings, Encoder(*equipped))
    if not total:
        yield error(f"data.{kind}: there is no row to train on in {data}; give other sources, or looser filters")
        return
    yield from describe(kind, tally, section.max_length, total)


def sample(path: Path, settings: Settings, encoder: Any) -> tuple[Tally, int]:
    """Encode rows from all over a set, at most `SAMPLE`.

    Args:
        path: The set's parquet file.
        settings: How rows are encoded.
        encoder: Tokenizer and template.

    Returns:
        The counts of the rows encoded, and how many rows the set has.
    """
    import pyarrow.parquet

    from posttrain.train.parts import Part, read_rows

    with pyarrow.parquet.ParquetFile(path) as file:
        total, groups = file.metadata.num_rows, file.num_row_groups
        sizes = [file.metadata.row_group(group).num_rows for group in range(groups)]
    tally = Tally()
    each = max(1, -(-SAMPLE // max(groups, 1)))
    # A row group is read whole; with more of them than are sampled, evenly spread ones are.
    step = max(1, groups * _AT_ONCE // SAMPLE)
    for group in range(0, groups, step):
        rows = read_rows(Part(path, group, path), settings.kind)
        apart = max(1, sizes[group] // (each * step))
        tally.add(settings.encode(rows[::apart][: each * step], encoder).tally)
    return tally, total


def describe(kind: str, tally: Tally, max_length: int, total: int | None = None) -> Iterator[Finding]:
    """Say what the counts mean.

    Args:
        kind: `sft` or `preference`.
        tally: The counts.
        max_length: In tokens.
        total: How many rows there are, where the counts are of a sample.
    """
    of = (
        f"{tally.rows:,} rows" if total is None or total <= tally.rows else f"{tally.rows:,} of {total:,} rows, sampled"
    )
    section = "sft" if kind == "sft" else "dpo"
    where = f"data.{kind}: of {of},"
    if not tally.kept:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in tally.reasons())
        yield error(f"{where} none can be trained on: {reasons}; raise {section}.max_length, or give other rows")
        return
    advice = f"raise {section}.max_length, or leave such rows out with data.filters.length.max_tokens={max_length}"
    if tally.truncated:
        yield warning(
            f"{where} {tally.truncated:,} ({tally.truncated / tally.rows:.2%}) are longer than {section}.max_length "
            f"{max_length} and are cut at their end, so their answers never end; {advice}"
        )
    for reason, count in tally.reasons():
        hint = f"; {advice}" if reason == TOO_LONG else "; rejected.parquet of the tokenize stage names them"
        yield warning(f"{where} {count:,} ({count / tally.rows:.2%}) are left out: {reason}{hint}")
    if not tally.truncated and not tally.refused:
        yield note(f"{where} every one fits {section}.max_length {max_length}")
    for name, source in sorted(tally.sources.items()):
        if source.rows and not source.trained_tokens:
            yield warning(f"{where} none of the {source.rows:,} of source {name} is trained on")
        elif tally.trained_tokens:
            yield note(
                f"data.{kind}: {name}: {source.kept:,} rows, {source.trained_tokens:,} trained tokens "
                f"({source.trained_tokens / tally.trained_tokens:.1%})"
            )
