from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from posttrain.errors import UserError
from tests.data.conversions import Records, convert, messages

Load = Callable[[str], Records]


@pytest.mark.parametrize("level", ["oasst_messages.jsonl", "oasst_trees.jsonl"])
@pytest.mark.parametrize("makes", ["sft", "preference"])
def test_both_levels_of_oasst_give_what_oasst_gives(load: Load, level: str, makes: str) -> None:
    records = load(level)
    ours, refused = convert("avoin_avustaja", makes, records, start=3, pairs="all", take="all")
    theirs, refused_there = convert("oasst", makes, records, start=3, pairs="all", take="all")
    assert ours
    assert [replace(row, source="oasst", license="Apache-2.0") for row in ours] == theirs
    assert refused == refused_there
    assert {row.license for row in ours} == {"MIT"}


def test_what_states_no_language_is_finnish(load: Load) -> None:
    records = [
        {name: value for name, value in record.items() if name != "lang"} for record in load("oasst_messages.jsonl")
    ]
    rows, _ = convert("avoin_avustaja", "sft", records)
    assert {row.language for row in rows} == {"fi"}


def test_conversations() -> None:
    records: Records = [
        {"id": "k1", "messages": messages("Mikä lintu?", "Joutsen.")},
        {"id": "k2", "messages": messages("Mikä lintu?")},
        {"id": "k3", "messages": messages("Which?", "The swan."), "language": "en"},
        {"id": "k4", "messages": None},
    ]
    rows, refused = convert("avoin_avustaja", "sft", records, start=40)
    assert [(row.units, row.language, row.license, json.loads(row.meta)["id"]) for row in rows] == [
        ((40,), "fi", "MIT", "k1"),
        ((42,), "en", "MIT", "k3"),
    ]
    assert [(row.unit, row.kind) for row in refused] == [(41, "no assistant turn"), (43, "missing column")]


def test_prompts_are_rows_too_where_they_are_to_be_answered(load: Load) -> None:
    records: Records = [{"messages": messages("Mikä lintu?")}, {"messages": messages("Q", "A")}, {"messages": None}]
    rows, refused = convert("avoin_avustaja", "prompts", records, start=2)
    assert [(row.messages, row.language, row.units) for row in rows] == [
        (messages("Mikä lintu?"), "fi", (2,)),
        (messages("Q", "A"), "fi", (3,)),
    ]
    assert [row.kind for row in refused] == ["missing column"]
    trees = load("oasst_trees.jsonl")
    assert convert("avoin_avustaja", "prompts", trees) == convert("avoin_avustaja", "sft", trees)


def test_conversations_hold_no_pairs() -> None:
    with pytest.raises(UserError, match="without ranked replies"):
        convert("avoin_avustaja", "preference", [{"messages": messages("Q", "A")}])


def test_neither() -> None:
    with pytest.raises(UserError, match="neither level of OASST; its columns are text"):
        convert("avoin_avustaja", "sft", [{"text": "a"}])


def test_no_records() -> None:
    assert convert("avoin_avustaja", "sft", []) == ([], [])


def test_an_entry_states_its_own_licence(load: Load) -> None:
    rows, _ = convert("avoin_avustaja", "sft", load("oasst_messages.jsonl"), license="CC0-1.0")
    assert {row.license for row in rows} == {"CC0-1.0"}
