"""The kinds of instruction that Magpie has the teacher write, and which row gets which.

Rows are divided by weight to the row (largest remainder), and the kinds are interleaved, so that the first rows, of a
trial or of a run that was stopped, have about the shares of the whole.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache, lru_cache

from posttrain.assets import asset_folder
from posttrain.data.languages import language_code
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import Category, MagpieRollout

FILE = "categories.yaml"  # in each language's folder of data/prompts

# Per cent. The order is that of the tagged releases of Xu et al. 2024 (arXiv:2406.08464), where more than half of the
# instructions seek information; the smaller shares are rounded up, so that a set of a few thousand rows has each kind.
SHARES = {
    "Information seeking": 52.0,
    "Creative writing": 9.0,
    "Advice seeking": 8.0,
    "Planning": 6.0,
    "Math": 6.0,
    "Coding & Debugging": 6.0,
    "Reasoning": 4.0,
    "Editing": 3.0,
    "Brainstorming": 2.0,
    "Data analysis": 2.0,
    "Role playing": 2.0,
}


@cache
def built_in(language: str) -> dict[str, str]:
    """Return the system prompts of the built-in categories by name, none for a language without any."""
    import yaml

    file = asset_folder("data") / "prompts" / language / FILE
    if not file.is_file():
        return {}
    texts: dict[str, str] = yaml.safe_load(file.read_text("utf-8"))
    return texts


def categories_of(options: MagpieRollout) -> tuple[Category, ...]:
    """Return the categories of an entry, their system prompts filled in.

    A category of the recipe that has none, and the name of a built-in one in whatever case, gets that one's; any other
    has the teacher write from its bare template. An empty text says so too: it keeps a built-in prompt away.

    Raises:
        UserError: `problems` finds any.
    """
    if found := problems(options):
        raise UserError([f"generate.{options.name}.{problem}" for problem in found])
    texts = built_in(prompts_language(options))
    if not options.categories:
        return tuple(Category(name=name, weight=share, system=texts[name]) for name, share in SHARES.items())
    by_name = {name.casefold(): text for name, text in texts.items()}
    return tuple(
        replace(category, system=by_name.get(category.name.casefold()) if category.system is None else category.system)
        for category in options.categories
    )


def problems(options: MagpieRollout) -> list[str]:
    """Find names given twice, and a language that has no built-in categories."""
    found = []
    if not options.categories and not built_in(prompts_language(options)):
        known = ", ".join(sorted(file.parent.name for file in (asset_folder("data") / "prompts").glob(f"*/{FILE}")))
        found.append(
            f"categories: there are built-in ones in {known}, none in {prompts_language(options)}; "
            "give categories with system prompts in that language"
        )
    seen: set[str] = set()
    for category in options.categories:
        if category.name.casefold() in seen:
            found.append(f"categories: {category.name!r} is there twice; give each name once")
        seen.add(category.name.casefold())
    return found


def quotas(weights: Sequence[float], rows: int) -> tuple[int, ...]:
    """Divide rows by weight: each gets its share rounded down, and the largest remainders one more; ties the first."""
    exact = [Fraction(weight) for weight in weights]
    shares = [rows * weight / sum(exact) for weight in exact]
    given = [math.floor(share) for share in shares]
    first = sorted(range(len(shares)), key=lambda place: (given[place] - shares[place], place))
    for place in first[: rows - sum(given)]:
        given[place] += 1
    return tuple(given)


@lru_cache(maxsize=8)
def schedule(counts: tuple[int, ...]) -> Sequence[int]:
    """Return whose turn it is, row by row, where each place in `counts` has so many turns, spread evenly.

    Turn j of q comes at (j + 1/2) / q of the way (the divisors of Webster), ties by place.
    """
    turns = ((turn + 0.5) / count for count in counts for turn in range(count))
    places = array("H", (place for place, count in enumerate(counts) for _ in range(count)))
    moments = array("d", turns)
    return array("H", (places[row] for row in sorted(range(len(places)), key=moments.__getitem__)))


def texts(options: MagpieRollout) -> dict[str, str]:
    """Return what determines the instructions, for a fingerprint: weight and system prompt of each category."""
    return {
        f"category {category.name}": f"{category.weight!r} {category.system or ''}"
        for category in categories_of(options)
    }


def prompts_language(options: MagpieRollout) -> str:
    """Return the code of the language that the package's prompts are wanted in: English where none is stated."""
    return "en" if options.language is None else language_code(options.language)
