"""What a data build did, counted, with the check that nothing was lost on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posttrain.data.assemble import REASONS, STEPS, Written
from posttrain.data.choose import Fate, Pool
from posttrain.data.sources import SOURCES

if TYPE_CHECKING:
    from posttrain.data.parts import EntryParts

BEFORE_ROWS = ("read", "convert")  # what these steps refuse is no row yet


@dataclass
class SourceSummary:
    """The account of one entry of the recipe.

    `read` counts records, some of which were unreadable. The others hold `units`, which a converter `used` in rows or
    refused. Of the `rows` it made, some were rejected or `sampled_out`; `train` and `validation` count the rest, each
    once; `train_repeats` is what `repeat` adds to `train`. `rejected` counts by step and reason; `licenses`,
    `languages`, `prompt_chars` and `answer_chars` are of the rows written, repeats included. `masked` counts the
    personal data replaced in the rows that no filter refused.
    """

    entry: str
    name: str
    source: str
    provenance: dict[str, Any]
    unit: str
    read: int = 0
    units: int = 0
    used: int = 0
    rows: int = 0
    sampled_out: int = 0
    train: int = 0
    train_repeats: int = 0
    validation: int = 0
    prompt_chars: int = 0
    answer_chars: int = 0
    masked: Counter[str] = field(default_factory=Counter)
    rejected: dict[str, Counter[str]] = field(default_factory=dict)
    licenses: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)

    def _rejected(self, *steps: str) -> int:
        return sum(sum(self.rejected.get(step, Counter()).values()) for step in steps)

    def reasons(self) -> list[tuple[str, int]]:
        """List every reason with its count, the most frequent first."""
        total: Counter[str] = sum(self.rejected.values(), Counter())
        return sorted(total.items(), key=lambda item: (-item[1], item[0]))

    def check(self, passed_on: int) -> None:
        """Check that every record was passed on or rejected, every unit used or refused, and every row accounted for.

        Raises:
            RuntimeError: Something was lost; a fault of the program.
        """
        _check(f"{self.entry}: records", self.read, passed_on + self._rejected("read"))
        _check(f"{self.entry}: {self.unit}s", self.units, self.used + self._rejected("convert"))
        steps = [step for step in self.rejected if step not in BEFORE_ROWS]
        out = self.train + self.validation + self.sampled_out
        _check(f"{self.entry}: rows", self.rows, out + self._rejected(*steps))

    def describe(self) -> str:
        """Say in a line what became of what was read."""
        train = self.train + self.train_repeats
        text = f"{self.name}: {self.read:,} read, {train:,} to train, {self.validation:,} held out"
        if self.sampled_out:
            text += f", {self.sampled_out:,} not sampled"
        for reason, count in self.reasons():
            text += f"; {count:,} rejected: {reason}"
        return text

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SourceSummary:
        """Return what `to_json` made."""
        rejected = {step: Counter(counts) for step, counts in values["rejected"].items()}
        counters = {name: Counter(values[name]) for name in ("licenses", "languages", "masked")}
        return cls(**{**values, "rejected": rejected, **counters})

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, counts in the order of their names."""
        plain = dict(vars(self))
        plain["rejected"] = {step: dict(sorted(counts.items())) for step, counts in sorted(self.rejected.items())}
        for name in ("licenses", "languages", "masked"):
            plain[name] = dict(sorted(plain[name].items()))
        return plain


def _check(what: str, total: int, parts: int) -> None:
    if total != parts:
        raise RuntimeError(f"{what}: {total} went in and {parts} came out; please report this")


@dataclass
class SetSummary:
    """One set, `sft` or `preference`: its sources, and the rows of its files, repeats counted."""

    sources: list[SourceSummary]
    train: int = 0
    validation: int = 0
    rejected: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**vars(self), "sources": [source.to_json() for source in self.sources]}


@dataclass
class Summary:
    """The whole build, by set, with the section of the recipe it followed; `to_json` is what `summary.json` holds."""

    seed: int
    settings: dict[str, Any]
    sets: dict[str, SetSummary]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        sets = {name: part.to_json() for name, part in self.sets.items()}
        return {"seed": self.seed, "settings": self.settings, "sets": sets}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Summary:
        """Return what `to_json` made."""
        sets = {
            name: SetSummary(**{**part, "sources": [SourceSummary.from_json(each) for each in part["sources"]]})
            for name, part in values["sets"].items()
        }
        return cls(values["seed"], values["settings"], sets)

    def provenance(self) -> dict[str, dict[str, Any]]:
        """Return where each entry's rows came from, how many and under which licences, by its place in the recipe."""
        return {
            source.entry: {**source.provenance, "rows": source.read, "licenses": sorted(source.licenses)}
            for part in self.sets.values()
            for source in part.sources
        }


def summarise(rows: Pool, entries: Sequence[EntryParts], written: Written) -> SetSummary:
    """Account for one set.

    Raises:
        RuntimeError: Rows were lost; a fault of the program.
    """
    found = SetSummary([_of_entry(rows, entry) for entry in entries], *vars(written).values())
    _check(f"{rows.kind}: train", sum(each.train + each.train_repeats for each in found.sources), found.train)
    _check(f"{rows.kind}: validation", sum(each.validation for each in found.sources), found.validation)
    _check(f"{rows.kind}: rejected", sum(n for each in found.sources for _, n in each.reasons()), found.rejected)
    return found


def _of_entry(rows: Pool, entry: EntryParts) -> SourceSummary:
    import numpy as np

    options, kind = entry.options, SOURCES[entry.options.source]
    found = SourceSummary(entry.key, options.label, options.source, entry.provenance, kind.unit)
    passed_on = 0
    for _, counts in entry.parts:
        passed_on += counts.passed_on
        for name in ("read", "units", "used", "rows"):
            setattr(found, name, getattr(found, name) + getattr(counts, name))
        found.masked.update(counts.masked)
        for step, reasons in counts.rejected.items():
            found.rejected.setdefault(step, Counter()).update(reasons)
    here = rows.entry_rows(entry.number)
    fates = np.bincount(rows.fate[here], minlength=len(Fate))
    for fate, step in STEPS.items():
        if fates[fate]:
            found.rejected.setdefault(step, Counter())[REASONS[fate]] += int(fates[fate])
    found.sampled_out, found.validation = int(fates[Fate.SAMPLED_OUT]), int(fates[Fate.VALIDATION])
    found.train = int(fates[Fate.TRAIN])
    out = np.isin(rows.fate[here], [Fate.TRAIN, Fate.VALIDATION])
    copies, keys = rows.copies[here][out], rows.keys[here][out]
    found.train_repeats = int(copies.sum()) - found.train - found.validation
    found.prompt_chars = int((keys["prompt_chars"] * copies).sum())
    found.answer_chars = int((keys["answer_chars"] * copies).sum())
    for name, names, counter in (
        ("language", rows.languages, found.languages),
        ("license", [each or "unknown" for each in rows.licenses], found.licenses),
    ):
        for code, count in enumerate(np.bincount(keys[name], weights=copies)):
            if count:
                counter[names[code]] += int(count)
    found.check(passed_on)
    return found
