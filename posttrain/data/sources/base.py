"""What every source shares: the options of a recipe entry, and what a converter gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from posttrain.data.languages import language_code
from posttrain.data.rows import UNKNOWN_LANGUAGE, PreferenceRow, Refused, SftRow

Record: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The keys of any entry under `data.sft` or `data.preference`.

    `path` is a hub id, a file, a folder, or `builtin:` and a path inside the package's `data/`. At most one of
    `fraction`, `max_rows` and `repeat` says how many of its rows go into the mixture. `name` tells two entries of
    one source apart in reports.
    """

    source: str
    path: str
    name: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str = "train"
    language: str | list[str] | None = None
    license: str | None = None
    fraction: float | None = None
    max_rows: int | None = None
    repeat: float | None = None

    @property
    def label(self) -> str:
        """What rows and reports call this entry."""
        return self.name or self.source

    @property
    def languages(self) -> list[str]:
        """The codes of the languages that the entry asks for, none where it takes all."""
        return [language_code(name) for name in self.language_names]

    @property
    def language_names(self) -> list[str]:
        """The languages as the recipe writes them."""
        if self.language is None:
            return []
        return [self.language] if isinstance(self.language, str) else list(self.language)


SftConverter: TypeAlias = Callable[[Iterable[Record], Any], Iterator["SftRow | Refused"]]
PreferenceConverter: TypeAlias = Callable[[Iterable[Record], Any], Iterator["PreferenceRow | Refused"]]


def one_unit(record: Record) -> int:
    """Count a record as one."""
    return 1


def no_problems(options: Any) -> list[str]:
    """Find nothing wrong."""
    return []


@dataclass(frozen=True, kw_only=True)
class SourceKind:
    """A source: its options, and the pure functions that turn its records into rows.

    A converter numbers the units that it reads from 0 in the order of the records and accounts for each: every unit
    is in the `units` of at least one row, or in exactly one `Refused`, never in both. A unit is a record, unless the
    source says otherwise: one OASST tree holds many messages. `check_own` finds problems in the options of this source
    that their types cannot show; it reads nothing.
    """

    name: str
    options: type[Source]
    to_sft: SftConverter | None = None
    to_preference: PreferenceConverter | None = None
    unit: str = "row"
    count_units: Callable[[Record], int] = one_unit
    check_own: Callable[[Any], list[str]] = no_problems

    @property
    def makes(self) -> frozenset[str]:
        """Which row contracts it can fill: `sft`, `preference`."""
        made = {"sft": self.to_sft, "preference": self.to_preference}
        return frozenset(name for name, converter in made.items() if converter is not None)

    def check(self, options: Any) -> list[str]:
        """Return the problems of an entry, each beginning with the key at fault; reads nothing."""
        problems = [
            f"language: {name!r} is no language; give ISO codes such as en, fi"
            for name in options.language_names
            if language_code(name) == UNKNOWN_LANGUAGE
        ]
        if options.repeat is not None and options.repeat < 1:
            problems.append(f"repeat: {options.repeat:g} is less than 1; use fraction to take a part of the rows")
        return [*problems, *self.check_own(options)]
