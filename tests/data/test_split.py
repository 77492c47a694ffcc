from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest

pytest.importorskip("numpy")

import numpy as np

from posttrain.data.rows import SftRow, sft_row, turn
from posttrain.data.sources import Source
from posttrain.data.split import Groups, hold_out, prompt_key, sample, tree_key
from posttrain.recipe.schema import Validation

IDS = [hashlib.sha256(str(number).encode()).digest()[:16] for number in range(100)]


def digests(names: list[str]) -> np.ndarray:
    return np.array([hashlib.sha256(name.encode()).digest()[:16] for name in names], "S16")


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
    copies = sample(IDS, entry(**keys), seed=1)
    assert ((copies > 0).sum(), copies.sum()) == (rows, total)


def test_samples_depend_on_the_seed_alone_and_nest() -> None:
    taken = sample(IDS, entry(max_rows=30), seed=1)
    assert sample(IDS[::-1], entry(max_rows=30), seed=1)[::-1].tolist() == taken.tolist()
    assert sample(IDS, entry(max_rows=30), seed=2).tolist() != taken.tolist()
    assert (taken <= sample(IDS, entry(max_rows=31), seed=1)).all()
    assert taken[:30].sum() < 30


def groups_of(rows: list[SftRow]) -> Groups:
    keys = [np.array([key(each) for each in rows], "S16") for key in (prompt_key, tree_key)]
    return Groups.of(*keys)


def test_rows_are_tied_by_tree_and_by_prompt() -> None:
    rows = [row("How are  you?", "t1"), row("how ARE you?"), row("Mitä?", "t1"), row("Something else", "t2")]
    first, second, third, fourth = groups_of(rows).of_row
    assert first == second == third != fourth


def test_groups_do_not_depend_on_the_order() -> None:
    shuffler = random.Random(0)
    keys = [(f"p{shuffler.randrange(60)}", f"t{shuffler.randrange(60)}") for _ in range(60)]

    def named(pairs: list[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        groups = Groups.of(digests([prompt for prompt, _ in pairs]), digests([tree for _, tree in pairs]))
        return dict(zip(pairs, groups.names[groups.of_row].tolist(), strict=True))

    expected = named(keys)
    assert 1 < len(set(expected.values())) < 40
    for _ in range(5):
        assert named(shuffler.sample(keys, len(keys))) == expected


@pytest.mark.parametrize("seed", range(20))
def test_no_set_trains_on_what_another_validates_on(seed: int) -> None:
    shuffler = random.Random(seed)
    validation = Validation(fraction=shuffler.choice([0.05, 0.2]), max_rows=shuffler.choice([3, 10, 1000]))
    sets = {name: np.array([shuffler.randrange(80) for _ in range(shuffler.choice([5, 200]))]) for name in ("a", "b")}
    held = hold_out(sets, digests([f"g{number}" for number in range(80)]), validation, seed)
    everywhere = held["a"].validation | held["b"].validation
    for name, groups in sets.items():
        rows = sum(group in held[name].validation for group in groups)
        assert 0 < rows <= validation.max_rows
        trained = set(groups.tolist()) - held[name].validation - held[name].excluded
        assert not trained & everywhere
        assert held[name].excluded <= everywhere


def held_out(groups: list[int], validation: Validation) -> set[int]:
    names = digests([f"g{number}" for number in range(max(groups) + 1)])
    return set(hold_out({"a": np.array(groups)}, names, validation, 1)["a"].validation)


def test_the_share_held_out() -> None:
    groups = list(range(1000))
    assert len(held_out(groups, Validation(fraction=0.05))) == 50
    assert len(held_out(groups, Validation(fraction=0.05, max_rows=7))) == 7
    assert not held_out(groups, Validation(fraction=0.0))
    assert not held_out(groups, Validation(fraction=0.05, max_rows=0))


def test_a_single_group_is_trained_on() -> None:
    assert not held_out([0] * 50, Validation())


def test_groups_larger_than_the_share_hold_out_the_smallest() -> None:
    assert held_out([0] * 50 + [1] * 20, Validation(fraction=0.05)) == {1}
