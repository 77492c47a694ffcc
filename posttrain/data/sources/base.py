"""What every source shares: the options of a recipe entry, and what a converter gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from posttrain.data.languages import language_code
from posttrain.data.rows import UNKNOWN_LANGUAGE, Conversation, PreferenceRow, Refused, SftRow

Record: TypeAlias = Mapping[str, Any]
StepName: TypeAlias = Literal[
    "markup",
    "truncation",
    "length",
    "language",
    "repetition",
    "refusal",
    "vendor",
    "pii",
    "decontaminate",
    "near_duplicates",
    "semantic_duplicates",
]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The keys of any entry under `data.sft` or `data.preference`.

    `path` is a hub id, a file, a folder, or `builtin:` and a path inside the package's `data/`. At most one of
    `fraction`, `max_rows` and `repeat` says how many of its rows go into the mixture. `name` tells two entries of
    one source apart in reports. `skip` names steps that leave its rows alone.
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
    skip: list[StepName] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What rows and reports call this entry."""
        return self.name or self.source

    @property
    def aligned_files(self) -> dict[str, Path] | None:
        """The line-aligned text files to read, by language, where the path names those and no file of records."""
        return None

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


SftConverter: TypeAlias = Callable[[Iterable[Record], Any, int], Iterator["SftRow | Refused"]]
PromptConverter: TypeAlias = Callable[[Iterable[Record], Any, int], Iterator["Conversation | Refused"]]
PreferenceConverter: TypeAlias = Callable[[Iterable[Record], Any, int], Iterator["PreferenceRow | Refused"]]


def one_unit(record: Record) -> int:
    """Count a record as one."""
    return 1


def no_problems(options: Any) -> list[str]:
    """Find nothing wrong."""
    return []


def as_given(options: Any, first: Sequence[Record]) -> Any:
    """Return the options as they are."""
    return options


@dataclass(frozen=True, kw_only=True)
class SourceKind:
    """A source: its options, and the pure functions that turn its records into rows.

    A converter is called as `to_sft(records, options, start)`. It numbers the units that it reads from `start` in the
    order of the records and accounts for each: every unit is in the `units` of at least one row, or in exactly one
    `Refused`, never in both. A unit is a record, unless the source says otherwise: one OASST tree holds many messages.

    Attributes:
        to_prompts: As `to_sft`, with the same rows for what that takes, and takes conversations that end with a user
            turn too: the input of those entries of `generate` that need no answers. None where `to_sft` serves.
        whole: It needs all records at once, because those that belong together may be anywhere. Any other is called
            with a part of the records at a time, in any process.
        prepare: Returns the options with what the first records of a source decide for all of them, such as its
            shape; may raise UserError. Called once a source.
        license: The licence of the data where an entry states none; None where it differs.
        check_own: Finds problems in the options of this source that their types cannot show; it reads nothing.
    """

    name: str
    options: type[Source]
    to_sft: SftConverter | None = None
    to_prompts: PromptConverter | None = None
    to_preference: PreferenceConverter | None = None
    unit: str = "row"
    whole: bool = False
    license: str | None = None
    prepare: Callable[[Any, Sequence[Record]], Any] = as_given
    count_units: Callable[[Record], int] = one_unit
    check_own: Callable[[Any], list[str]] = no_problems

    @property
    def makes(self) -> frozenset[str]:
        """Which row contracts it can fill: `sft`, `preference`."""
        made = {"sft": self.to_sft, "preference": self.to_preference}
        return frozenset(name for name, converter in made.items() if converter is not None)

    def licensed(self, options: Source) -> Source:
        """Return the options of an entry with this source's licence, where they state none."""
        return options if options.license is not None else replace(options, license=self.license)

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
