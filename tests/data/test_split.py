from __future__ import annotations

import random
from typing import Any

import pytest

from posttrain.data.rows import SftRow, sft_row, turn
from posttrain.data.sources import Source
from posttrain.data.split import Groups, hold_out, sample, split_keys
from posttrain.recipe.schema import Validation

IDS = [f"id{number}" for number in range(100)]


def entry(**keys: Any) -> Source:
    return Source(source="generic", path="x", **keys)


def row(prompt: str, tree: str | None = None) -> SftRow:
    messages = [turn("user", prompt), turn("assistant", "Yes.")]
    return sft_row(messages, source="s", language="en", license=None, meta={"tree": tree} if tree else {}, units=(0,))


@pytest.mark.parametrize(
    ("keys", "rows", "total"),
    [
        ({}, 100, 100),
        ({"fraction": 0.25}, 25, 25),
        ({"fraction": 0.0}, 0, 0),
        ({"max_rows": 30}, 30, 30),
        ({"max_rows": 1000}, 100, 100),
        ({"repeat": 2.0}, 100, 200),
        ({"repeat": 1.37}, 100, 137),
    ],
)
def test_how_many_rows_are_sampled(keys: dict[str, Any], rows: int, total: int) -> None:
    taken = dict(sample(IDS, entry(**keys), seed=1))
    assert (len(taken), sum(taken.values())) == (rows, total)


def test_samples_depend_on_the_seed_alone_and_nest() -> None:
    taken = sample(IDS, entry(max_rows=30), seed=1)
    assert sample(IDS[::-1], entry(max_rows=30), seed=1) == taken
    assert sample(IDS, entry(max_rows=30), seed=2) != taken
    assert set(taken) < set(sample(IDS, entry(max_rows=31), seed=1))
    assert {name for name, _ in taken} != set(IDS[:30])


def test_rows_are_tied_by_tree_and_by_prompt() -> None:
    rows = [row("How are  you?", "t1"), row("how ARE you?"), row("Mitä?", "t1"), row("Something else", "t2")]
    groups = Groups(split_keys(each) for each in rows)
    first, second, third, fourth = (groups.of(split_keys(each)) for each in rows)
    assert first == second == third != fourth


def test_groups_do_not_depend_on_the_order() -> None:
    shuffler = random.Random(0)
    keys = [(f"k{shuffler.randrange(60)}", f"k{shuffler.randrange(60)}") for _ in range(40)]
    expected = [Groups(keys).of(pair) for pair in keys]
    for _ in range(5):
        groups = Groups(shuffler.sample(keys, len(keys)))
        assert [groups.of(pair) for pair in keys] == expected


@pytest.mark.parametrize("seed", range(20))
def test_no_set_trains_on_what_another_validates_on(seed: int) -> None:
    shuffler = random.Random(seed)
    validation = Validation(fraction=shuffler.choice([0.05, 0.2]), max_rows=shuffler.choice([3, 10, 1000]))
    sets = {name: [f"g{shuffler.randrange(80)}" for _ in range(shuffler.choice([5, 200]))] for name in ("a", "b")}
    held = hold_out(sets, validation, seed)
    everywhere = held["a"].validation | held["b"].validation
    for name, groups in sets.items():
        rows = sum(group in held[name].validation for group in groups)
        assert 0 < rows <= validation.max_rows
        trained = set(groups) - held[name].validation - held[name].excluded
        assert not trained & everywhere
        assert held[name].excluded <= everywhere


def test_the_share_held_out() -> None:
    groups = [f"g{number}" for number in range(1000)]
    assert len(hold_out({"a": groups}, Validation(fraction=0.05), 1)["a"].validation) == 50
    assert len(hold_out({"a": groups}, Validation(fraction=0.05, max_rows=7), 1)["a"].validation) == 7
    assert not hold_out({"a": groups}, Validation(fraction=0.0), 1)["a"].validation
    assert not hold_out({"a": groups}, Validation(fraction=0.05, max_rows=0), 1)["a"].validation


def test_a_single_group_is_trained_on() -> None:
    assert not hold_out({"a": ["g"] * 50}, Validation(), 1)["a"].validation


def test_groups_larger_than_the_share_hold_out_the_smallest() -> None:
    groups = ["big"] * 50 + ["small"] * 20
    assert hold_out({"a": groups}, Validation(fraction=0.05), 1)["a"].validation == {"small"}
