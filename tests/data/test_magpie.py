from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.sources.magpie import QUALITIES
from tests.data.conversions import convert, messages, problems

NAMES = {"user": "human", "assistant": "gpt"}


def sharegpt(*texts: str) -> list[dict[str, str]]:
    return [{"from": NAMES[turn["role"]], "value": turn["content"]} for turn in messages(*texts)]


def record(**columns: Any) -> dict[str, Any]:
    return {
        "conversation_id": "a1",
        "instruction": "Q",
        "response": "A",
        "conversations": sharegpt("Q", "A"),
        "difficulty": "easy",
        "input_quality": "good",
        "task_category": "Math",
        "instruct_reward": -1.2,
        "min_neighbor_distance": 0.31,
        "repeat_count": 0,
        "min_similar_conversation_id": None,
        "llama_guard_2": "safe",
        "language": "EN",
        **columns,
    }


def reasons(given: dict[str, Any], **keys: Any) -> list[str]:
    return [row.kind for row in convert("magpie", "sft", [given], **keys)[1]]


@pytest.mark.parametrize(
    "columns",
    [
        {"conversations": sharegpt("Q", "A", "Q2", "A2")},
        {"instruction": "Q", "response": "A", "instruction_2": "Q2", "response_2": "A2", "instruction_3": None},
        {"input": "Q", "output": "A", "input_2": "Q2", "output_2": "A2"},
        {"conversations": sharegpt("Q", "A"), "instruction": "Q", "response": "A"}
        | {"instruction_2": "Q2", "response_2": "A2"},
    ],
    ids=["conversations", "numbered", "first releases", "both"],
)
def test_every_variant_of_the_columns_gives_the_same_conversation(columns: dict[str, Any]) -> None:
    (row,), _ = convert("magpie", "sft", [{"uuid": "u", "language": "FI", **columns}], turns=2)
    assert row.messages == messages("Q", "A", "Q2", "A2")
    assert row.language == "fi"
    assert json.loads(row.meta)["id"] == "u"


def test_the_best_of_several_responses() -> None:
    scores = [{"score": 0.1}, {"score": 0.3}, {"score": 0.2}]
    given = {"instruction": "Q", "responses": ["a", "b", "c"], "rewards_armorm": scores}
    (row,), _ = convert("magpie", "sft", [given])
    assert row.messages == messages("Q", "b")
    assert reasons({**given, "rewards_armorm": scores[:2]}) == ["missing column"]


def test_nothing_is_filtered_unasked() -> None:
    poor = record(input_quality="very poor", instruct_reward=-20.0, min_neighbor_distance=0.0, llama_guard_2="S2")
    assert reasons(poor | {"repeat_count": 5, "min_similar_conversation_id": "other"}) == []
    assert reasons({"instruction": "Q", "response": "A"}) == []


@pytest.mark.parametrize("least", QUALITIES)
def test_quality_is_a_scale(least: str) -> None:
    rows, _ = convert("magpie", "sft", [record(input_quality=quality) for quality in QUALITIES], min_quality=least)
    assert [json.loads(row.meta)["quality"] for row in rows] == list(QUALITIES[QUALITIES.index(least) :])


@pytest.mark.parametrize(
    ("columns", "keys", "reason"),
    [
        ({"input_quality": "superb"}, {"min_quality": "poor"}, "unknown input_quality"),
        ({"difficulty": "hard"}, {"difficulty": ["easy", "medium"]}, "difficulty not selected"),
        ({"task_category": "Editing"}, {"task_categories": ["Math"]}, "task category not selected"),
        ({"instruct_reward": -4.1}, {"min_reward": -4.0}, "reward below min_reward"),
        ({"instruct_reward": "high"}, {"min_reward": -4.0}, "instruct_reward is not a number"),
        ({"llama_guard_2": "S9"}, {"safe_only": True}, "not safe"),
        ({}, {"turns": 2}, "number of turns not selected"),
        ({}, {"min_turns": 2}, "fewer turns than min_turns"),
        ({"response": "", "conversations": sharegpt("Q", "")}, {}, "empty content"),
    ],
)
def test_reasons(columns: dict[str, Any], keys: dict[str, Any], reason: str) -> None:
    assert reasons(record(**columns), **keys) == [reason]


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        ("input_quality", {"min_quality": "poor"}),
        ("difficulty", {"difficulty": ["easy"]}),
        ("task_category", {"task_categories": ["Math"]}),
        ("instruct_reward", {"min_reward": -4.0}),
        ("llama_guard_2", {"safe_only": True}),
    ],
)
def test_a_label_that_is_asked_for_must_be_there(column: str, keys: dict[str, Any]) -> None:
    assert reasons(record(), **keys) == []
    assert reasons(record(**{column: None}), **keys) == [f"{column} not stated"]
    assert reasons({name: value for name, value in record().items() if name != column}, **keys) == [
        f"{column} not stated"
    ]


@pytest.mark.parametrize(
    ("columns", "stays"),
    [
        ({"min_neighbor_distance": 0.06, "repeat_count": 0}, True),
        ({"min_neighbor_distance": 0.05, "repeat_count": 2, "min_similar_conversation_id": "z"}, False),
        ({"min_neighbor_distance": 0.01, "repeat_count": 2, "min_similar_conversation_id": "a1"}, True),
        ({"min_neighbor_distance": 0.09, "repeat_count": 2, "min_similar_conversation_id": "z"}, True),
        ({"min_neighbor_distance": None, "repeat_count": 1, "min_similar_conversation_id": "z"}, False),
        ({"min_neighbor_distance": None, "repeat_count": 0}, True),
    ],
)
def test_distance_or_representative(columns: dict[str, Any], stays: bool) -> None:
    found = reasons(record(**columns), min_neighbor_distance=0.05)
    assert found == ([] if stays else ["near-duplicate"])
    renamed = {name.replace("conversation_id", "uuid"): value for name, value in record(**columns).items()}
    assert reasons(renamed, min_neighbor_distance=0.05) == found


def test_no_distance_at_all() -> None:
    given = {"instruction": "Q", "response": "A"}
    assert reasons(given, min_neighbor_distance=0.05) == ["min_neighbor_distance not stated"]


def test_one_row_of_a_group_of_near_duplicates_stays() -> None:
    group = [
        record(conversation_id=name, min_neighbor_distance=0.0, repeat_count=2, min_similar_conversation_id="b")
        for name in ("b", "c", "d")
    ]
    rows, _ = convert("magpie", "sft", group, min_neighbor_distance=0.05)
    assert [json.loads(row.meta)["id"] for row in rows] == ["b"]


@pytest.mark.parametrize(
    ("keys", "at_fault"),
    [
        ({"task_categories": ["math", "Coding & Debugging"]}, []),
        ({"task_categories": ["Maths"]}, ["task_categories"]),
        ({"turns": 2, "min_turns": 2}, ["min_turns"]),
        ({"turns": 0}, ["turns"]),
    ],
)
def test_options(keys: dict[str, Any], at_fault: list[str]) -> None:
    assert problems("magpie", **keys) == at_fault


def test_real_rows_with_five_responses(real_data: Path) -> None:
    lines = (real_data / "magpie-5-responses-armorm.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    rows, refused = convert("magpie", "sft", records, min_quality="average")
    assert not refused
    for row, given in zip(rows, records, strict=True):
        scores = [reward["score"] for reward in given["rewards_armorm"]]
        best = max(zip(scores, given["responses"], strict=True), key=lambda pair: pair[0])[1]
        assert row.messages == messages(given["instruction"], best)
