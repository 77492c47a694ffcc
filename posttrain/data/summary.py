"""What a data build did, counted, with the check that nothing was lost on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from posttrain.data.rows import reason_kind


@dataclass
class SourceSummary:
    """The account of one entry of the recipe.

    `read` counts records, `unreadable` of them were none. The others hold `units`, which a converter `used` in rows
    or refused. Of the `rows` it made, some were rejected or `sampled_out`; `train` and `validation` count the rest,
    each once; `train_repeats` is what `repeat` adds to `train`. `rejected` counts by step and reason; `licenses` and
    `languages` count the rows written, repeats included.
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
    rejected: dict[str, Counter[str]] = field(default_factory=dict)
    licenses: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)

    def reject(self, step: str, reason: str) -> None:
        """Count a refusal under the countable part of its reason."""
        self.rejected.setdefault(step, Counter())[reason_kind(reason)] += 1

    def _rejected(self, steps: Iterable[str]) -> int:
        return sum(sum(self.rejected.get(step, Counter()).values()) for step in steps)

    def reasons(self) -> list[tuple[str, int]]:
        """List every reason with its count, the most frequent first."""
        total: Counter[str] = sum(self.rejected.values(), Counter())
        return sorted(total.items(), key=lambda item: (-item[1], item[0]))

    def check_reading(self, passed_on: int) -> None:
        """Check that every record read was passed on or rejected, and every unit used or refused.

        Raises:
            RuntimeError: A converter or the build lost something; a fault of the program.
        """
        _check(f"{self.entry}: records", self.read, passed_on + self._rejected(["read"]))
        _check(f"{self.entry}: {self.unit}s", self.units, self.used + self._rejected(["convert"]))

    def check_rows(self) -> None:
        """Check that every row made is in the output, rejected or sampled out; errors as `check_reading`."""
        out = self.train + self.validation + self.sampled_out
        _check(f"{self.entry}: rows", self.rows, out + self._rejected(["language", "dedup", "split"]))

    def describe(self) -> str:
        """Say in a line what became of what was read."""
        train = self.train + self.train_repeats
        text = f"{self.name}: {self.read:,} read, {train:,} to train, {self.validation:,} held out"
        if self.sampled_out:
            text += f", {self.sampled_out:,} not sampled"
        for reason, count in self.reasons():
            text += f"; {count:,} rejected: {reason}"
        return text

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, counts in the order of their names."""
        plain = dict(vars(self))
        plain["rejected"] = {step: dict(sorted(counts.items())) for step, counts in sorted(self.rejected.items())}
        plain["licenses"] = dict(sorted(self.licenses.items()))
        plain["languages"] = dict(sorted(self.languages.items()))
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
    """The whole build, by set; `to_json` is what `summary.json` holds."""

    seed: int
    sets: dict[str, SetSummary]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"seed": self.seed, "sets": {name: part.to_json() for name, part in self.sets.items()}}

    def provenance(self) -> dict[str, dict[str, Any]]:
        """Return where each entry's rows came from, by the entry's place in the recipe."""
        return {source.entry: source.provenance for part in self.sets.values() for source in part.sources}
