"""Which numbers a card may contain: those in the files beside it, and what follows from them."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from posttrain.data.licences import licence
from posttrain.release.card.lint import derived
from posttrain.release.card.lint.facts import Facts

MINUS = "−"
# A number by itself: not a part of a word, of a name such as Llama-3B, or of a version such as 2.13.0.
NUMBER = re.compile(
    r"(?<![\w.,])(?<![A-Za-z]-)(?P<sign>[+−-]?)(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?!\w|\.\d|,\d)"
    r"(?P<percent>\s?%)?"
)
VERSION = re.compile(r"(?<![\w.])\d+(?:\.\d+){2,}(?![\w.]*\d)")
_IN_TEXT = re.compile(r"(?<![A-Za-z\d])\d+(?:\.\d+)?")  # not the 16 of bfloat16
_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{16,}")
_UNITS = (1, 10**3, 10**6, 10**9)
_LONGEST = 2000  # characters of a text whose numerals count


@dataclass
class Known:
    """Numbers that a card may contain. `percent` are those that may have a percent sign; `versions` are whole texts."""

    numbers: list[float] = field(default_factory=list)
    percent: list[float] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)

    def sort(self) -> Known:
        """Make it ready to be asked."""
        self.numbers = sorted(set(self.numbers))
        self.percent = sorted(set(self.percent))
        return self

    def has(self, written: str, *, percent: bool = False) -> bool:
        """Say whether a written number, rounded as it is written, is one of them."""
        return found(written, self.percent if percent else self.numbers)


def read(written: str) -> tuple[float, int]:
    """Return a written number without its sign, and how many decimals it is given with."""
    digits = written.lstrip("+-" + MINUS).replace(",", "")
    mantissa = digits.partition("e")[0]
    return float(digits), 0 if "e" in digits else len(mantissa.partition(".")[2])


def rounds_to(value: float, written: str) -> bool:
    """Say whether a value, rounded, is the number as it is written; one without decimals has to be exact."""
    number, places = read(written)
    slack = 0.5 * 10**-places if places else 0.0
    return abs(abs(value) - number) <= slack + 1e-9 * max(1.0, number)


def found(written: str, among: list[float]) -> bool:
    """Say whether one of the sorted values, rounded, is the number as it is written."""
    number, places = read(written)
    slack = (0.5 * 10**-places if places else 0.0) + 1e-9 * max(1.0, number)
    at = bisect.bisect_left(among, number - slack)
    return at < len(among) and among[at] <= number + slack


def known_numbers(facts: Facts) -> Known:
    """Gather the numbers of all records of a release, and those that follow from them."""
    known = Known()
    manifests = [_of_manifest(manifest) for manifest in facts.manifests.values()]
    records: list[Any] = [facts.card, facts.results, facts.variants, facts.data, facts.recipe, facts.config, *manifests]
    for record in records:
        for value in numbers_in(record):
            known.numbers.append(value)
        for text in texts_in(record):
            known.percent += [float(match[1]) for match in re.finditer(r"(\d+(?:\.\d+)?)\s?%", text)]
            known.versions.update(match[0] for match in VERSION.finditer(text))
    for text in _licence_texts(facts):
        known.numbers += [float(digits) for digits in _IN_TEXT.findall(text)]
    if facts.weights is not None:
        sizes = [facts.weights.bytes, facts.weights.parameters or 0]
        known.numbers += [size / unit for size in sizes for unit in _UNITS]
    known.numbers += [size / unit for size in derived.sizes(facts) for unit in _UNITS]
    known.percent += [*derived.shares(facts), *derived.results_in_percent(facts), *derived.perplexity_increases(facts)]
    known.numbers += [*derived.differences(facts), *derived.counts(facts), *derived.cosines(facts), *known.percent]
    return known.sort()


def of_stage(facts: Facts, stage: str) -> Known:
    """Gather the numbers of one stage's manifest."""
    manifest = _of_manifest(facts.manifests[stage])
    known = Known(numbers=list(numbers_in(manifest)))
    known.percent = list(known.numbers)
    return known.sort()


def _of_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a card may cite of a manifest: not the sizes and digests of files."""
    return {key: manifest.get(key) for key in ("recipe", "metrics", "seed", "world_size", "versions", "sources")}


def numbers_in(values: Any) -> Iterator[float]:
    """Yield all numbers in nested values without their signs, the numerals in short texts and in keys too."""
    if isinstance(values, Mapping):
        for key, child in values.items():
            yield from numbers_in(str(key))
            yield from numbers_in(child)
    elif isinstance(values, (list, tuple)):
        for child in values:
            yield from numbers_in(child)
    elif isinstance(values, (int, float)) and not isinstance(values, bool):
        yield abs(float(values))
    elif isinstance(values, str) and len(values) <= _LONGEST and not _DIGEST.fullmatch(values):
        for digits in _IN_TEXT.findall(values):
            yield float(digits)


def texts_in(values: Any) -> Iterator[str]:
    """Yield all texts in nested values."""
    if isinstance(values, Mapping):
        for child in values.values():
            yield from texts_in(child)
    elif isinstance(values, (list, tuple)):
        for child in values:
            yield from texts_in(child)
    elif isinstance(values, str) and len(values) <= _LONGEST:
        yield values


def _licence_texts(facts: Facts) -> Iterator[str]:
    stated = facts.card.get("license") or {}
    ids = [*stated.get("ids", ()), *stated.get("base", ())]
    ids += [name for source in derived.sources(facts) for name in source["licenses"]]
    for id in dict.fromkeys(ids):
        of = licence(id)
        yield from (of.name, *of.obligations)
