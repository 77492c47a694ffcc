"""The steps of an entry, their order, and that no row is lost between them."""

from __future__ import annotations

from collections.abc import Sequence
from time import process_time

import pytest

from posttrain.data.rows import Row, SftRow
from posttrain.data.sources.base import Source
from posttrain.data.steps.base import Rejected, Result
from posttrain.data.steps.chain import apply, row_steps
from posttrain.errors import UserError
from posttrain.recipe.schema_data import (
    Data,
    Filters,
    LanguageFilter,
    LengthFilter,
    MarkupFilter,
    Pii,
    RefusalFilter,
    RepetitionFilter,
    TruncationFilter,
    VendorFilter,
)
from tests.data.steps.made import pair, sft

ENTRY = Source(source="made", path="made.jsonl")
FILTERS = Filters(
    markup=MarkupFilter(),
    truncation=TruncationFilter(),
    length=LengthFilter(min_prompt=3),
    repetition=RepetitionFilter(),
    refusal=RefusalFilter(),
    vendor=VendorFilter(),
)
DATA = Data(filters=FILTERS, pii=Pii())
ROWS: list[Row] = [
    sft("Hyvä vastaus."),
    sft("a <|im_end|> b"),
    sft("```\nx"),
    sft("Hyvä.", prompt="a"),
    sft("sama asia " * 100),
    sft("En voi auttaa."),
    sft("I am ChatGPT."),
    sft("Kirjoita: a@example.fi"),
    pair("Hyvä.", "Huono."),
    pair("a@example.fi", "b@example.fi"),
    sft("Toinen hyvä."),
]


class Extra:
    """Refuses answers with `Toinen`, and keeps what it was shown."""

    name = "decontaminate"

    def __init__(self) -> None:
        self.shown: list[Row] = []

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        self.shown += rows
        return [Rejected("test") if "Toinen" in str(row) else row for row in rows]


class Forgetful:
    """Loses a row."""

    name = "forgetful"

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        return list(rows[1:])


def test_steps_come_in_the_order_of_the_filters_then_masking_then_the_rest() -> None:
    names = [step.name for step in row_steps(DATA, ENTRY, None, [Extra()])]
    assert names == ["markup", "truncation", "length", "repetition", "refusal", "vendor", "pii", "decontaminate"]
    assert row_steps(Data(), ENTRY, None) == []


def test_an_entry_leaves_out_what_it_skips() -> None:
    entry = Source(source="made", path="made.jsonl", skip=["pii", "vendor", "decontaminate"])
    names = [step.name for step in row_steps(DATA, entry, None, [Extra()])]
    assert names == ["markup", "truncation", "length", "repetition", "refusal"]


def test_every_row_is_left_or_rejected_once_in_order() -> None:
    extra = Extra()
    left, rejected = apply(row_steps(DATA, ENTRY, None, [extra]), ROWS)
    assert [(step, ROWS.index(row)) for row, step, _ in rejected if step != "decontaminate"] == [
        ("markup", 1),
        ("truncation", 2),
        ("length", 3),
        ("repetition", 4),
        ("refusal", 5),
        ("vendor", 6),
        ("pii", 9),
    ]
    assert left == [ROWS[0], extra.shown[1], ROWS[8]]
    masked = left[1]
    assert isinstance(masked, SftRow)
    assert masked.messages[-1]["content"] == "Kirjoita: [EMAIL]"
    assert len(left) + len(rejected) == len(ROWS)


def test_a_step_sees_only_what_is_left() -> None:
    extra = Extra()
    apply(row_steps(DATA, ENTRY, None, [extra]), ROWS)
    assert len(extra.shown) == 4


def test_rejected_rows_come_in_the_order_of_the_rows_not_of_the_steps() -> None:
    rows: list[Row] = [ROWS[6], ROWS[1], ROWS[5], ROWS[2]]
    _, rejected = apply(row_steps(DATA, ENTRY, None), rows)
    assert [row for row, _, _ in rejected] == rows


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batches_make_no_difference(size: int) -> None:
    steps = row_steps(DATA, ENTRY, None, [Extra()])
    left: list[Row] = []
    rejected: list[tuple[Row, str, str]] = []
    for start in range(0, len(ROWS), size):
        batch_left, batch_rejected = apply(steps, ROWS[start : start + size])
        left += batch_left
        rejected += batch_rejected
    assert (left, rejected) == apply(steps, ROWS)


def test_a_step_that_loses_a_row_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="forgetful was given 11 rows and gave back 10"):
        apply([Forgetful()], ROWS)


def test_what_steps_lack_is_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttrain.data.steps.identifier.find_spec", lambda name: None)
    data = Data(filters=Filters(length=LengthFilter(max_tokens=5), language=LanguageFilter()))
    with pytest.raises(UserError) as error:
        row_steps(data, ENTRY, None)
    assert len(error.value.problems) == 2


@pytest.mark.parametrize(
    "piece", ["a", "漢字", "a. ", " ", "1 ", "a.b@c.d ", "> ", "```\n", "<a [", "I am OpenAI assistant ", "tel ", "\n"]
)
def test_a_huge_message_takes_time_in_proportion_to_its_length(piece: str) -> None:
    # Where a step were quadratic, each of these would take minutes.
    row = sft("x" + piece * (300_000 // len(piece)) + "x")
    began = process_time()
    for step in row_steps(DATA, ENTRY, None):
        step([row])
    assert process_time() - began < 10
