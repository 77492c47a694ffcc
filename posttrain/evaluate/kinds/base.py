"""What every kind of task has, so that running, scoring again and tables need not know which it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from posttrain.evaluate.answers import Answer, sha256
from posttrain.evaluate.decode import Advance
from posttrain.evaluate.metrics import Measured, Metric

if TYPE_CHECKING:
    from posttrain.evaluate.checkpoints import Loaded


@dataclass(frozen=True)
class Sample:
    """One sample: `prompt` is what is asked, before any chat template, and `item` what scoring needs."""

    id: str
    prompt: str
    item: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Where to read rows; what `posttrain.data.read` asks of an entry."""

    path: str
    revision: str | None
    config: str | None
    split: str


@dataclass(frozen=True)
class About:
    """What a task is, for `results.json`.

    Attributes:
        kind: Name of its kind, by which answers are scored again.
        title: For tables.
        language: ISO code, or `en-fi` of a translation.
        version: Raised when the prompts or the scoring come to mean something else.
        num_fewshot: Examples before each sample.
        metrics: What it reports.
        options: Anything else that determines a score.
    """

    kind: str
    title: str
    language: str
    version: str
    num_fewshot: int
    metrics: tuple[Metric, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def as_json(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return it as it stands in `results.json`, with the number of samples and the hash of their prompts."""
        listed = "".join(f"{sample.id}\t{sha256(sample.prompt)}\n" for sample in samples)
        return {
            "kind": self.kind,
            "title": self.title,
            "language": self.language,
            "version": self.version,
            "prompts_sha256": sha256(listed),
            "num_fewshot": self.num_fewshot,
            "samples": len(samples),
            "metrics": {metric.name: metric.as_json() for metric in self.metrics},
            "options": self.options,
        }


@dataclass(frozen=True)
class How:
    """How answers are made.

    Attributes:
        batch_size: Prompts, or requests, at once.
        store: A folder for what is worth keeping if the process is stopped.
        advance: Called with the number of samples that have been answered.
    """

    batch_size: int
    store: Path
    advance: Advance


class Task(Protocol):
    """A task that a model answers by itself; those that a judge scores are `Judged`."""

    @property
    def name(self) -> str:
        """What results call it."""

    @property
    def about(self) -> About:
        """What it is."""

    @property
    def samples(self) -> Sequence[Sample]:
        """Its samples, read on first use.

        Raises:
            UserError: They cannot be read.
        """

    @property
    def seen(self) -> list[dict[str, Any]]:
        """What its samples were read from, once they have been."""

    def answer(self, loaded: Loaded, how: How) -> list[Answer]:
        """Return a model's answer to every sample, in order, scored."""


class Scorer(Protocol):
    """How answers of one kind are scored, from the answers alone."""

    def score(self, answer: Answer, options: dict[str, Any]) -> dict[str, Any]:
        """Return the scores of one answer, by name."""

    def measure(self, answers: Sequence[Answer], options: dict[str, Any]) -> list[Measured]:
        """Return the metrics over all answers."""


def few(rows: Sequence[Any], most: int | None) -> list[Any]:
    """Return the first `most` rows, or all."""
    return list(rows) if most is None else list(rows[:most])
