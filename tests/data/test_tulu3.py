from __future__ import annotations

import json
from typing import Any

import pytest

from posttrain.data.licences import card, licence
from tests.data.conversions import convert, messages, problems

REFERENCE = ["flan_v2", "sciriff", "no_robots", "numinamath"]


def record(source: Any, **columns: Any) -> dict[str, Any]:
    return {"id": "x_1", "messages": messages("Q", "A"), "source": source, **columns}


SUBSETS = card("tulu3").subsets  # type: ignore[union-attr]


def test_the_reference_drops_exactly_what_forbids_commercial_use() -> None:
    rows, refused = convert("tulu3", "sft", [record(subset.rows) for subset in SUBSETS], drop_subsets=REFERENCE)
    dropped = {row.source_row["source"] for row in refused}  # type: ignore[index]
    assert {row.kind for row in refused} == {"subset dropped"}
    assert dropped == {subset.rows for subset in SUBSETS if licence(subset.license).forbids_commercial_use}
    assert len(dropped) == 4
    assert len(rows) == len(SUBSETS) - 4 == 15


@pytest.mark.parametrize("subset", SUBSETS, ids=lambda subset: subset.name)
def test_rows_have_the_licence_of_their_subset(subset: Any) -> None:
    (row,), _ = convert("tulu3", "sft", [record(subset.rows)])
    assert row.license == subset.license
    assert licence(row.license).known
    assert json.loads(row.meta) == {"id": "x_1", "row": 0, "subset": subset.rows}


def test_the_entry_decides_over_the_subset_and_the_mixture_where_none_is_named() -> None:
    (stated,), _ = convert("tulu3", "sft", [record("ai2-adapt-dev/no_robots_converted")], license="MIT")
    (unnamed, unknown), _ = convert("tulu3", "sft", [record(None), record("someone/new")])
    assert (stated.license, unnamed.license, unknown.license) == ("MIT", "ODC-BY-1.0", "ODC-BY-1.0")


@pytest.mark.parametrize("name", ["flan_v2", "FLAN v2", "flan-v2", "ai2-adapt-dev/flan_v2_converted", "flan"])
def test_spellings_of_a_subset(name: str) -> None:
    _, refused = convert("tulu3", "sft", [record("ai2-adapt-dev/flan_v2_converted")], drop_subsets=[name])
    assert [row.reason for row in refused] == ["subset dropped: ai2-adapt-dev/flan_v2_converted"]
    assert problems("tulu3", drop_subsets=[name]) == []


@pytest.mark.parametrize("name", ["flan_v3", "", " ", "ai2-adapt-dev/", "flan_v2_converted_more"])
def test_names_of_no_subset(name: str) -> None:
    assert problems("tulu3", drop_subsets=[name, "aya"]) == ["drop_subsets"]


def test_multi_turn_and_system_turns_stay() -> None:
    turns = [{"role": "system", "content": "S"}, *messages("Q", "A", "Q2", "A2")]
    (row,), _ = convert("tulu3", "sft", [record("ai2-adapt-dev/oasst1_converted", messages=turns)])
    assert row.messages == turns


def test_prompts_are_rows_too_where_they_are_to_be_answered() -> None:
    given = [record("ai2-adapt-dev/aya"), record("ai2-adapt-dev/flan_v2"), record(None, messages=messages("Q"))]
    learned, unanswered = convert("tulu3", "sft", given, drop_subsets=[])
    rows, refused = convert("tulu3", "prompts", given)
    assert [vars(row) for row in rows[:2]] == [vars(row) for row in learned]
    assert rows[2].messages == messages("Q")
    assert (rows[2].license, json.loads(rows[2].meta)) == ("ODC-BY-1.0", {"id": "x_1", "row": 2})
    assert (refused, [row.reason for row in unanswered]) == ([], ["no assistant turn"])
    _, dropped = convert("tulu3", "prompts", given, drop_subsets=["flan"])
    assert [row.kind for row in dropped] == ["subset dropped", "subset not stated"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"messages": None}, "missing column"),
        ({"messages": messages("Q")}, "no assistant turn"),
        ({"messages": messages("Q", " ")}, "empty content"),
        ({"source": 3}, "source is not text"),
        ({"source": None}, "subset not stated"),
    ],
)
def test_reasons(columns: dict[str, Any], reason: str) -> None:
    given = {**record("ai2-adapt-dev/aya"), **columns}
    _, refused = convert("tulu3", "sft", [given], start=9, drop_subsets=["flan"])
    assert [row.kind for row in refused] == [reason]
