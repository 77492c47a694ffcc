"""Numbers that a card may contain because they follow from its records: shares, sums, differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

from posttrain.data.licences import licence
from posttrain.data.report.terms import UNSTATED
from posttrain.release.card.lint.facts import Facts
from posttrain.release.card.results import PERCENT


def sources(facts: Facts) -> list[Mapping[str, Any]]:
    """Return the sources of all sets of the training data."""
    return [source for part in facts.data.get("sets", {}).values() for source in part["sources"]]


def sizes(facts: Facts) -> Iterator[int]:
    """Yield the sizes of the variants, and of what they were made from, in bytes."""
    of = [facts.variants.get("base", {}), *facts.variants.get("variants", ())]
    yield from (int(each["bytes"]) for each in of if each.get("bytes") is not None)


def counts(facts: Facts) -> Iterator[int]:
    """Yield sums of rows: of a source with its repeats, and of a licence, a kind of licence, a language in the sets."""
    yield from (source["train"] + source["train_repeats"] for source in sources(facts))
    for tally in _tallies(facts):
        yield from tally.values()


def cosines(facts: Facts) -> Iterator[float]:
    """Yield the cosine similarity that the squared distance of near texts stands for, by unit vectors."""
    duplicates = (facts.data.get("settings") or {}).get("duplicates") or {}
    if semantic := duplicates.get("semantic"):
        yield 1 - float(semantic["threshold"]) / 2


def shares(facts: Facts) -> Iterator[float]:
    """Yield what parts are of the whole, in percent: of rows, of tokens, and what the recipe states as a share."""
    for part in facts.data.get("sets", {}).values():
        for source in part["sources"]:
            if part["train"]:
                yield 100 * (source["train"] + source["train_repeats"]) / part["train"]
            yield from _percentages(source["licenses"])
    for tally in _tallies(facts):
        yield from _percentages(tally)
    for manifest in facts.manifests.values():
        metrics = manifest.get("metrics") or {}
        by_source = metrics.get("sources")
        for source in by_source.values() if isinstance(by_source, dict) else ():
            yield from (100 * float(source[key]) for key in ("row_share", "trained_token_share") if key in source)
        yield from (100 * float(value) for key, value in metrics.items() if key.endswith("/realised_share"))
    yield from (100 * share for share in _fractions([facts.data.get("settings"), facts.results.get("settings")]))


def _percentages(of: Mapping[str, int]) -> Iterator[float]:
    total = sum(of.values())
    yield from (100 * rows / total for rows in of.values() if total)


def _fractions(values: Any) -> Iterator[float]:
    """Yield the settings that are between 0 and 1: cards write some of them as percentages."""
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, list):
        for child in values:
            yield from _fractions(child)
    elif isinstance(values, float) and 0 < values < 1:
        yield values


def _tallies(facts: Facts) -> Iterator[Counter[str]]:
    """Yield the rows by licence, by what licences say of commercial use, and by language, of each set and of all."""
    sets = facts.data.get("sets", {})
    for names in ([*sets], *([name] for name in sets)):
        of = [source for name in names for source in sets[name]["sources"]]
        licences, languages, kinds = Counter[str](), Counter[str](), Counter[str]()
        for source in of:
            licences.update(source["licenses"])
            languages.update(source["languages"])
        for name, rows in licences.items():
            kinds[licence(None if name == UNSTATED else name).commercial] += rows
        yield from (licences, languages, kinds)


def results_in_percent(facts: Facts) -> Iterator[float]:
    """Yield all results that are in percent."""
    for task, _, metric, kind in facts.metrics():
        if kind["unit"] == PERCENT:
            values = (facts.value(model, task, metric) for model in facts.results.get("models", {}))
            yield from (value for value in values if value is not None)


def perplexity_increases(facts: Facts) -> Iterator[float]:
    """Yield by how many percent the perplexity of each variant differs from that of what it was made from."""
    for variant in facts.variants.get("variants", ()):
        if isinstance(variant.get("perplexity_ratio"), (int, float)):
            yield abs(100 * (variant["perplexity_ratio"] - 1))


def differences(facts: Facts, unit: str | None = None) -> Iterator[float]:
    """Yield by how much any two models differ in any metric, or in those of one unit, without the sign."""
    models = list(facts.results.get("models", {}))
    for task, _, metric, kind in facts.metrics():
        if unit is None or kind["unit"] == unit:
            for a, b in permutations(models, 2):
                one, other = facts.value(a, task, metric), facts.value(b, task, metric)
                if one is not None and other is not None and one >= other:
                    yield one - other
