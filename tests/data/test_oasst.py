from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.rows import PreferenceRow, Refused, SftRow
from posttrain.data.sources.oasst import KIND, Oasst, to_preference, to_sft
from posttrain.errors import UserError

Load = Callable[[str], list[dict[str, Any]]]
LEVELS = ["oasst_messages.jsonl", "oasst_trees.jsonl"]
TOP = {("p1", "a0", "p2", "b0"), ("p1", "a0", "p3", "c"), ("q1", "r1"), ("s1", "s2")}


def options(**keys: Any) -> Oasst:
    return Oasst(source="oasst", path="x", **keys)


def thread_ids(records: list[dict[str, Any]], **keys: Any) -> set[tuple[str, ...]]:
    rows = [row for row in to_sft(records, options(**keys), 0) if isinstance(row, SftRow)]
    found = [tuple(json.loads(row.meta)["messages"]) for row in rows]
    assert len(found) == len(set(found))
    return set(found)


def pair_ids(records: list[dict[str, Any]], **keys: Any) -> dict[tuple[str, str], float | None]:
    rows = [row for row in to_preference(records, options(**keys), 0) if isinstance(row, PreferenceRow)]
    metas = [json.loads(row.meta) for row in rows]
    return {(meta["messages"][-1], meta["rejected"]): row.margin for meta, row in zip(metas, rows, strict=True)}


@pytest.mark.parametrize("level", LEVELS)
def test_top_threads(load: Load, level: str) -> None:
    assert thread_ids(load(level)) == TOP


@pytest.mark.parametrize("level", LEVELS)
def test_all_threads(load: Load, level: str) -> None:
    more = {("p1", "a0", "p2", "b1"), ("p1", "a1", "p5", "d"), ("p1", "a2"), ("f1", "f2"), ("f1", "f3")}
    assert thread_ids(load(level), take="all") == TOP | more | {("q1", "r2"), ("s1", "s3")}


@pytest.mark.parametrize("level", LEVELS)
def test_pairs(load: Load, level: str) -> None:
    records = load(level)
    next_best: dict[tuple[str, str], float | None] = {("a0", "a1"): 1.0, ("b0", "b1"): 1.0, ("r1", "r2"): 1.0}
    assert pair_ids(records) == next_best
    with_synthetic = {("r0", "r1"): 1.0, ("r0", "r2"): 2.0, ("r1", "r2"): 1.0}
    assert pair_ids(records, keep_synthetic=True, pairs="all") == {**next_best, **with_synthetic}
    assert pair_ids(records, keep_synthetic=True, pairs="top-last")["r0", "r2"] == 2.0


def test_filters_can_be_lifted(load: Load) -> None:
    records = load("oasst_messages.jsonl")
    assert ("q1", "r0") in thread_ids(records, keep_synthetic=True)
    assert ("x1", "x2") in thread_ids(records, tree_states=["ready_for_export", "aborted_low_grade"])
    assert ("p1", "ad", "pd", "e") in thread_ids(records, keep_deleted=True, take="all")


def test_the_order_of_messages_does_not_matter(load: Load) -> None:
    records = load("oasst_messages.jsonl")
    for seed in range(5):
        shuffled = random.Random(seed).sample(records, len(records))
        assert thread_ids(shuffled) == TOP
        assert pair_ids(shuffled, pairs="all") == pair_ids(records, pairs="all")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("convert", [to_sft, to_preference])
@pytest.mark.parametrize("keys", [{}, {"take": "all", "pairs": "all"}, {"keep_deleted": True, "keep_synthetic": True}])
def test_every_message_is_used_or_refused_once(load: Load, level: str, convert: Any, keys: dict[str, Any]) -> None:
    records = load(level)
    made = list(convert(records, options(**keys), 0))
    refused = [row.unit for row in made if isinstance(row, Refused)]
    used = {unit for row in made if not isinstance(row, Refused) for unit in row.units}
    assert sorted([*used, *refused]) == list(range(sum(KIND.count_units(record) for record in records)))


def test_reasons(load: Load) -> None:
    made = to_sft(load("oasst_messages.jsonl"), options(), 0)
    reasons = {row.source_row["message_id"]: row.kind for row in made if isinstance(row, Refused)}  # type: ignore[index]
    assert reasons == {
        "ad": "deleted",
        "pd": "reply to a refused message",
        "e": "reply to a refused message",
        "a1": "lower-ranked reply",
        "p5": "on a branch not taken",
        "d": "on a branch not taken",
        "b1": "lower-ranked reply",
        "p4": "prompt without a reply",
        "a2": "unranked reply among ranked ones",
        "f1": "prompt without a ranked reply",
        "f2": "unranked reply with siblings",
        "f3": "unranked reply with siblings",
        "r0": "synthetic",
        "r2": "lower-ranked reply",
        "x1": "tree state",
        "x2": "tree state",
        "s3": "lower-ranked reply",
        "s4": "prompt without a reply",
        "o1": "orphan",
        "o2": "reply to a refused message",
    }


def test_languages_of_a_thread(load: Load) -> None:
    records = load("oasst_messages.jsonl")
    for record in records:
        if record["message_id"] == "r1":
            record["lang"] = "sv"
    rows = [row for row in to_sft(records, options(), 0) if isinstance(row, SftRow)]
    assert {json.loads(row.meta)["tree"]: row.language for row in rows} == {"t1": "en", "t3": "mul", "t5": "en"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"role": "user"}, "unknown role"),
        ({"text": None}, "content is not text"),
        ({"text": " "}, "empty content"),
        ({"rank": "first"}, "rank is not a whole number"),
        ({"parent_id": "p2"}, "unranked reply among ranked ones"),
        ({"parent_id": "a1"}, "roles out of order"),
        ({"parent_id": None}, "roles out of order"),
        ({"message_id": "p1"}, "message_id seen before"),
        ({"parent_id": "b0", "role": "prompter"}, "prompt without a reply"),
    ],
)
def test_faulty_messages_are_refused(load: Load, change: dict[str, Any], reason: str) -> None:
    records = load("oasst_messages.jsonl")
    place = next(place for place, record in enumerate(records) if record["message_id"] == "a2")
    records[place] = {**records[place], **change}
    (refused,) = [row for row in to_sft(records, options(), 0) if isinstance(row, Refused) and row.unit == place]
    assert refused.kind == reason


def test_neither_level() -> None:
    with pytest.raises(UserError, match="neither level of OASST; its columns are messages"):
        list(to_sft([{"messages": []}], options(), 0))


def test_a_circle_of_replies_ends(load: Load) -> None:
    records = load("oasst_messages.jsonl")
    circle = [
        {**records[0], "message_id": "c1", "parent_id": "c2"},
        {**records[1], "message_id": "c2", "parent_id": "c1"},
    ]
    circle[1]["deleted"] = False
    assert thread_ids([*records, *circle]) == TOP


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_real_threads_and_pairs_are_the_same_in_english_and_finnish(real_data: Path) -> None:
    english, finnish = (read(real_data / f"oasst1-{language}-messages.jsonl") for language in ("en", "fi"))
    assert thread_ids(english) == thread_ids(finnish)
    assert pair_ids(english, pairs="all") == pair_ids(finnish, pairs="all")
    assert thread_ids(english) <= thread_ids(english, take="all")
    trees = {record["message_tree_id"] for record in english if record["parent_id"] is None}
    assert len(trees) <= len(thread_ids(english)) <= 1.1 * len(trees)


def test_real_trees_flattened_to_messages_give_the_same_threads(real_data: Path) -> None:
    trees = read(real_data / "oasst-en-trees.jsonl")
    messages = []
    stack = [(tree, tree["prompt"], None) for tree in trees]
    while stack:
        tree, node, parent = stack.pop()
        about = {"parent_id": parent, "message_tree_id": tree["message_tree_id"], "tree_state": tree["tree_state"]}
        messages.append({**{key: value for key, value in node.items() if key != "replies"}, **about})
        stack += [(tree, reply, node["message_id"]) for reply in node["replies"]]
    for take in ("top", "all"):
        assert thread_ids(trees, take=take) == thread_ids(messages, take=take)
    assert pair_ids(trees, pairs="all") == pair_ids(messages, pairs="all")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("convert", [to_sft, to_preference])
def test_messages_are_numbered_from_the_start(load: Load, level: str, convert: Any) -> None:
    def numbers(start: int) -> list[tuple[int, ...]]:
        made = convert(load(level), options(), start)
        return [(row.unit,) if isinstance(row, Refused) else row.units for row in made]

    assert numbers(100) == [tuple(unit + 100 for unit in units) for units in numbers(0)]
