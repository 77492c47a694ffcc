"""Rows divided among categories, exactly and evenly."""

from __future__ import annotations

from collections import Counter

import pytest

from posttrain.data.generate.categories import (
    SHARES,
    built_in,
    categories_of,
    problems,
    quotas,
    schedule,
    texts,
)
from posttrain.data.sources.magpie import CATEGORIES
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import Category, MagpieRollout


def entry(rows: int = 10, language: str | None = None, categories: list[Category] | None = None) -> MagpieRollout:
    return MagpieRollout(rollout="magpie", name="m", rows=rows, language=language, categories=categories or [])


def test_rows_are_divided_by_largest_remainder() -> None:
    assert quotas([3, 1], 8) == (6, 2)
    assert quotas([1, 1, 1], 10) == (4, 3, 3)
    assert quotas([5, 3, 2], 7) == (4, 2, 1)  # 3.5, 2.1, 1.4: the one left over goes to the first
    assert quotas([1, 0], 3) == (3, 0)
    assert quotas([0.1, 0.2, 0.7], 10) == (1, 2, 7)
    assert quotas([1, 1], 0) == (0, 0)


@pytest.mark.parametrize("rows", [1, 7, 100, 14_000])
def test_each_category_gets_its_quota_and_no_row_is_left_over(rows: int) -> None:
    counts = quotas(list(SHARES.values()), rows)
    assert sum(counts) == rows
    assert all(abs(count - rows * share / 100) < 1 for count, share in zip(counts, SHARES.values(), strict=True))
    assert Counter(schedule(counts)) == Counter({place: count for place, count in enumerate(counts) if count})


def test_any_prefix_of_the_rows_has_about_the_shares() -> None:
    counts = quotas(list(SHARES.values()), 3000)
    so_far: Counter[int] = Counter()
    for taken, place in enumerate(schedule(counts), 1):
        so_far[place] += 1
        for each, count in enumerate(counts):
            share = count / 3000
            # Rounding of its own turns, and of all the others' together, see `schedule`.
            assert abs(so_far[each] - taken * share) <= 1.5 + share * len(counts) / 2


def test_turns_are_spread_evenly() -> None:
    assert list(schedule((3, 1))) == [0, 0, 1, 0]
    assert list(schedule((1, 0, 2))) == [2, 0, 2]


@pytest.mark.parametrize("language", ["en", "fi"])
def test_built_in_categories_are_those_of_the_shares_and_known_to_magpie(language: str) -> None:
    categories = categories_of(entry(language=language))
    assert [category.name for category in categories] == list(SHARES)
    assert set(SHARES) == set(built_in(language)) <= set(CATEGORIES)
    assert sum(SHARES.values()) == 100
    assert max(SHARES, key=SHARES.__getitem__) == "Information seeking"
    for category in categories:
        assert category.system
        assert ("suomeksi" in category.system) == (language == "fi")
        assert "\n" not in category.system


def test_a_named_category_gets_the_built_in_prompt_unless_it_has_its_own() -> None:
    given = [Category(name="math"), Category(name="Editing", system="Own."), Category(name="Bare")]
    math, editing, bare = categories_of(entry(language="fi", categories=given))
    assert math.system == built_in("fi")["Math"]
    assert editing.system == "Own."
    assert bare.system is None
    assert categories_of(entry(categories=[Category(name="Math", system="")]))[0].system == ""


def test_problems_are_found_together() -> None:
    given = [Category(name=name) for name in ("a", "b", "A", "c", "B")]
    found = problems(entry(categories=given))
    assert found == [f"categories: '{name}' is there twice; give each name once" for name in ("A", "B")]
    with pytest.raises(UserError) as error:
        categories_of(entry(categories=given))
    assert error.value.problems == [f"generate.m.{problem}" for problem in found]


@pytest.mark.parametrize("spelling", ["fin", "Finnish", "FI"])
def test_a_language_may_be_spelt_as_elsewhere_in_a_recipe(spelling: str) -> None:
    assert categories_of(entry(language=spelling)) == categories_of(entry(language="fi"))


def test_a_language_without_built_in_categories_needs_some_of_its_own() -> None:
    (problem,) = problems(entry(language="sv"))
    assert "in en, fi, none in sv" in problem
    assert not problems(entry(language="sv", categories=[Category(name="a", system="Du är ...")]))


def test_what_determines_the_instructions_is_told_for_a_fingerprint() -> None:
    finnish = texts(entry(language="fi"))
    assert set(finnish) == {f"category {name}" for name in SHARES}
    assert built_in("fi")["Math"] in finnish["category Math"]
    one, other = (texts(entry(categories=[Category(name="a", weight=weight)])) for weight in (1.0, 2.0))
    assert one != other
