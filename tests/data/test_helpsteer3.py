from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from posttrain.data.rows import PreferenceRow, Refused
from posttrain.data.sources.helpsteer3 import KIND, HelpSteer3, to_preference

Load = Callable[[str], list[dict[str, Any]]]


def convert(records: list[dict[str, Any]], **options: Any) -> tuple[list[PreferenceRow], list[Refused]]:
    made = list(to_preference(records, HelpSteer3(source="helpsteer3", path="x", **options), 0))
    assert len(made) == len(records)
    return [row for row in made if isinstance(row, PreferenceRow)], [row for row in made if isinstance(row, Refused)]


def test_a_negative_preference_chooses_response_1(load: Load) -> None:
    rows, _ = convert(load("helpsteer3.jsonl"))
    first, second = rows[:2]
    assert (first.chosen[0]["content"], first.rejected[0]["content"]) == ("First answer.", "Second answer.")
    assert (second.chosen[0]["content"], second.rejected[0]["content"]) == ("Second answer.", "First answer.")
    assert (first.margin, second.margin) == (2.0, 3.0)


def test_turning_responses_and_sign_round_changes_nothing(load: Load) -> None:
    records = load("helpsteer3.jsonl")
    turned = [
        {
            **record,
            "response1": record.get("response2"),
            "response2": record.get("response1"),
            "overall_preference": -record["overall_preference"],
        }
        for record in records
        if isinstance(record.get("overall_preference"), int)
    ]
    assert [row.id for row in convert(turned)[0]] == [row.id for row in convert(records)[0]]


def test_code_names_a_programming_language_not_a_natural_one(load: Load) -> None:
    rows, _ = convert(load("helpsteer3.jsonl"))
    assert [row.language for row in rows] == ["en", "en", "und", "fi"]
    code = rows[2]
    assert json.loads(code.meta)["language"] == "python"
    assert [message["role"] for message in code.prompt] == ["user", "assistant", "user"]


def test_reasons(load: Load) -> None:
    _, refused = convert(load("helpsteer3.jsonl"))
    assert [row.kind for row in refused] == [
        "tie",
        "content is not text",
        "empty content",
        "chosen equals rejected",
        "overall_preference out of range",
        "overall_preference is not a whole number",
        "unknown domain",
        "prompt does not end with a user turn",
        "missing column",
    ]


def test_domains_and_margin(load: Load) -> None:
    records = load("helpsteer3.jsonl")
    rows, refused = convert(records, domains=["general", "code"], min_margin=2)
    assert [row.margin for row in rows] == [2.0, 3.0]
    assert {"domain not selected", "margin below min_margin"} <= {row.kind for row in refused}


@pytest.mark.parametrize(("options", "key"), [({"domains": ["generel"]}, "domains"), ({"min_margin": 4}, "min_margin")])
def test_options_out_of_range(options: dict[str, Any], key: str) -> None:
    (problem,) = KIND.check(HelpSteer3(source="helpsteer3", path="x", **options))
    assert problem.startswith(f"{key}: ")


def test_annotators_do_not_matter_and_rows_are_numbered_on(load: Load) -> None:
    record = load("helpsteer3.jsonl")[0]
    judged = [{"score": -2, "reasoning": "r", "feedback1": "f", "feedback2": None}, {"score": 1}]
    options = HelpSteer3(source="helpsteer3", path="x")
    for individual in (None, [], judged):
        (row,) = to_preference([{**record, "individual_preference": individual}], options, 70_000)
        assert isinstance(row, PreferenceRow)
        assert row.margin == 2.0
        assert row.units == (70_000,)
        assert json.loads(row.meta)["row"] == 70_000
        assert row.license == KIND.license == "CC-BY-4.0"
