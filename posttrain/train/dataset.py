"""What a trainer reads: tokens that the tokenize stage wrote, mapped from their files, and the counts beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

IGNORED = -100  # the label that a loss leaves out
TOO_LONG = "longer than max_length"
NOTHING_LEFT = "no trained token within max_length"
COUNTS = "tokens.json"
SPLITS = ("train", "validation")


@dataclass
class SourceTally:
    """What encoding gave of one source. `rows` counts all that were read, `kept` those that are trained on."""

    rows: int = 0
    kept: int = 0
    tokens: int = 0
    trained_tokens: int = 0


@dataclass
class Tally:
    """What encoding a set of rows gave, by source; `refused` counts by reason, details left out."""

    truncated: int = 0
    sources: dict[str, SourceTally] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows read."""
        return sum(source.rows for source in self.sources.values())

    @property
    def kept(self) -> int:
        """Rows that are trained on."""
        return sum(source.kept for source in self.sources.values())

    @property
    def tokens(self) -> int:
        """Tokens of the rows kept."""
        return sum(source.tokens for source in self.sources.values())

    @property
    def trained_tokens(self) -> int:
        """Tokens of them that have a loss."""
        return sum(source.trained_tokens for source in self.sources.values())

    def keep(self, source: str, tokens: int, trained_tokens: int, *, truncated: bool = False) -> None:
        """Count a row that is trained on."""
        of_source = self.sources.setdefault(source, SourceTally())
        of_source.rows += 1
        of_source.kept += 1
        of_source.tokens += tokens
        of_source.trained_tokens += trained_tokens
        self.truncated += truncated

    def refuse(self, source: str, reason: str) -> None:
        """Count a row that is refused."""
        self.sources.setdefault(source, SourceTally()).rows += 1
        kind = reason.partition(":")[0]
        self.refused[kind] = self.refused.get(kind, 0) + 1

    def add(self, other: Tally) -> None:
        """Add the counts of other rows."""
        self.truncated += other.truncated
        for name, theirs in other.sources.items():
            ours = self.sources.setdefault(name, SourceTally())
            for key, value in asdict(theirs).items():
                setattr(ours, key, getattr(ours, key) + value)
        self.refused = dict(Counter(self.refused) + Counter(other.refused))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, sums too, names in order."""
        sums = {key: getattr(self, key) for key in ("rows", "kept", "truncated", "tokens", "trained_tokens")}
        sources = {name: asdict(source) for name, source in sorted(self.sources.items())}
        return {**sums, "sources": sources, "refused": dict(sorted(self.refused.items()))}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tally:
        """Return what `to_json` made."""
        sources = {name: SourceTally(**source) for name, source in values["sources"].items()}
        return cls(truncated=values["truncated"], sources=sources, refused=dict(values["refused"]))

    def reasons(self) -> list[tuple[str, int]]:
        """Return the reasons for refusals with their counts, the most frequent first."""
        return Counter(self.refused).most_common()

    def metrics(self, held_out: Tally) -> dict[str, Any]:
        """Return the counts of a training set for the manifest, with the refusals of its held-out set too."""
        counts = {"rows": self.kept, "tokens": self.tokens, "trained_tokens": self.trained_tokens}
        return counts | {"refused": dict(Counter(self.refused) + Counter(held_out.refused))}

    def describe(self) -> str:
        """Say in a line what became of the rows."""
        text = f"{self.kept:,} of {self.rows:,} rows, {self.tokens:,} tokens, {self.trained_tokens:,} trained"
        if self.truncated:
            text += f", {self.truncated:,} rows cut to max_length"
        for reason, count in self.reasons():
            text += f"; {count:,} refused: {reason}"
        return text


def require_rows(tally: Tally, kind: str) -> None:
    """Stop when no row of a training set is left.

    Args:
        tally: What encoding its rows gave.
        kind: `sft` or `preference`.

    Raises:
        UserError: It counts the reasons for which the rows were refused.
    """
    if not tally.kept:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in tally.reasons())
        what, section = ("SFT", "sft") if kind == "sft" else ("preference", "dpo")
        advice = f"raise {section}.max_length, or give other rows in data.{kind}"
        raise UserError(f"no {what} row of train.parquet can be trained on: {reasons or 'the set is empty'}; {advice}")


@dataclass(frozen=True)
class TokenSet:
    """Training and held-out rows, and what is known of them.

    Attributes:
        train: The training rows; of SFT `input_ids`, `labels` and, where they are packed by `bfd`, `seq_lengths`; of
            preferences `prompt_ids`, `chosen_ids` and `rejected_ids`. All are lists of int32.
        held_out: The held-out rows, never packed.
        tally: What encoding the training rows gave.
        tally_held_out: The same of the held-out rows.
    """

    train: Dataset
    held_out: Dataset
    tally: Tally
    tally_held_out: Tally


def load_tokens(folder: Path) -> TokenSet:
    """Map what the tokenize stage wrote to a folder; nothing of it is read before it is asked for."""
    from datasets import Dataset

    train, held_out = (Dataset.from_file(str(folder / f"{split}.arrow")) for split in SPLITS)
    counts = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
    tallies = [Tally.from_json(counts[split]) for split in SPLITS]
    return TokenSet(train, held_out, *tallies)
