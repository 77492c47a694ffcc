"""The source `generated`: rows of parts as rows to train on, with failures and ratings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.build import build
from posttrain.data.generate.parts import PartWriter, Refusals, RunSummary, finish, record_of
from posttrain.data.generate.rows import InputRow, Outcome
from posttrain.data.rows import Refused, SftRow, content_id
from posttrain.data.sources import SOURCES
from posttrain.recipe.schema import Data
from posttrain.recipe.schema_data import Validation
from tests.data.conversions import convert as conversions
from tests.data.conversions import messages


def record(number: int = 0, *, failed: str | None = None, **generated: Any) -> dict[str, Any]:
    """Return a row of a part, as the run writes it."""
    given = InputRow(
        number=number,
        id=f"{number:032x}",
        messages=messages(f"Question {number}?"),
        language="fi",
        license="CC-BY-4.0",
        meta={"row": 900 + number, "topic": "fish", "text": "x" * 500},
    )
    outcome = Outcome(messages=messages(f"Question {number}?", f"Answer {number}."), failed=failed, meta=generated)
    return record_of(given, outcome)


def convert(*records: dict[str, Any], **keys: Any) -> list[SftRow | Refused]:
    kind = SOURCES["generated"]
    assert kind.to_sft is not None
    options = kind.options(source="generated", path="answers", **keys)
    return list(kind.to_sft(records, kind.prepare(options, records), 5))


def reasons(*records: dict[str, Any], **keys: Any) -> list[str | None]:
    return [made.reason if isinstance(made, Refused) else None for made in convert(*records, **keys)]


def test_a_row_keeps_language_licence_and_what_is_known_of_it() -> None:
    (row,) = convert(
        record(3, finish_reason="stop", ratings={"0": 4.0, "1": 2.5}, sample=0, unrated=[], left=["a", "b"]), name="own"
    )
    assert isinstance(row, SftRow)
    assert row.messages == messages("Question 3?", "Answer 3.")
    assert row.id == content_id(row.messages)
    assert (row.source, row.language, row.license, row.units) == ("own", "fi", "CC-BY-4.0", (5,))
    assert json.loads(row.meta) == {
        "finish_reason": "stop",
        "id": f"{3:032x}",
        "left": "a, b",
        "ratings.0": 4.0,
        "ratings.1": 2.5,
        "row": 5,
        "sample": 0,
        "topic": "fish",
    }


def test_a_row_that_failed_is_refused_with_its_reason() -> None:
    (refused,) = convert(record(failed="answer truncated: finish_reason length", quality=4.0), min_quality=3.0)
    assert isinstance(refused, Refused)
    assert refused.reason == "generation failed: answer truncated: finish_reason length"
    assert refused.kind == "generation failed"
    assert refused.unit == 5


def test_ratings_are_asked_for_only_with_a_minimum() -> None:
    rows = [
        record(0, quality=4.0, fluency=3.0),
        record(1, quality=2.5, fluency=5.0),
        record(2),
        record(3, quality=None),
    ]
    assert reasons(*rows) == [None] * 4
    assert reasons(*rows, min_quality=4.0) == [
        None,
        "quality below min_quality: 2.5",
        "unrated: quality",
        "unrated: quality",
    ]
    assert reasons(*rows, min_fluency=4) == [
        "fluency below min_fluency: 3",
        None,
        "unrated: fluency",
        "unrated: fluency",
    ]


def test_the_rating_that_chose_among_samples_counts() -> None:
    chosen = record(ratings={"0": 2.0, "1": 4.0}, sample=1)
    assert reasons(chosen, min_quality=4.0) == [None]
    assert reasons(chosen, min_quality=4.5) == ["quality below min_quality: 4"]
    assert reasons(record(ratings={"0": 2.0}, sample=None), min_quality=1.0) == ["unrated: quality"]


def test_a_rating_of_an_earlier_answer_does_not_count() -> None:
    assert reasons(record(before={"quality": 5.0}), min_quality=1.0) == ["unrated: quality"]


def test_minima_off_the_scale_are_problems() -> None:
    kind = SOURCES["generated"]
    options = kind.options(source="generated", path="x", min_quality=5.5, min_fluency=5)  # type: ignore[call-arg]
    assert kind.check(options) == ["min_quality: 5.5 is not on the scale, which goes from 0 to 5"]


def test_prompts_that_were_only_translated_are_refused() -> None:
    for turns in (messages("Q"), messages("Q", "A", "R")):
        (made,) = convert({**record(), "messages": turns})
        assert isinstance(made, Refused)
        assert made.reason == "not answered yet, as a respond entry with rows_from does"
    given = [record(1), {**record(2), "messages": messages("Q")}, record(3, failed="empty answer")]
    rows, refused = conversions("generated", "prompts", given)
    assert [row.messages for row in rows] == [messages("Question 1?", "Answer 1."), messages("Q")]
    assert [row.kind for row in refused] == ["generation failed"]


@pytest.mark.parametrize("turns", [[], messages("Q", "\0")])
def test_messages_that_are_no_conversation_are_refused(turns: list[dict[str, str]]) -> None:
    (made,) = convert({**record(), "messages": turns})
    assert isinstance(made, Refused)


def test_a_folder_of_parts_is_built_into_a_set(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    folder = tmp_path / "generated" / "answers"
    folder.mkdir(parents=True)
    writer = PartWriter(folder, 8)
    for number in range(30):
        writer.add(record(number, failed="empty answer" if number % 10 == 0 else None, quality=float(number % 5)))
    writer.close()
    with Refusals(folder) as refused:
        refused.add("generic", "read", "not JSON: line 3", "{")
        refused.finish()
    finish(folder, RunSummary(rows=30, failed=3, parts=4))
    entry = {"source": "generated", "path": str(folder), "name": "answers", "min_quality": 2}
    data = Data(sft=[entry], validation=Validation(fraction=0.0), num_proc=1)
    build(data, 1, tmp_path / "data", report=False)
    rows = pq.read_table(tmp_path / "data/sft/train.parquet").to_pylist()
    assert sorted(json.loads(row["meta"])["row"] for row in rows) == [n for n in range(30) if n % 10 and n % 5 >= 2]
    assert {row["source"] for row in rows} == {"answers"}
    rejected = pq.read_table(tmp_path / "data/sft/rejected.parquet").to_pylist()
    found = [row["reason"] for row in rejected]
    assert found.count("generation failed") == 3
    assert found.count("quality below min_quality") == 9
    assert len(rows) + len(rejected) == 30
