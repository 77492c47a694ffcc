"""One thing that a check has found: an error, a warning or a note, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """What was found.

    An `error` makes a run fail or train something else than is meant; a `warning` is for the user to judge; a `note`
    says what was looked at and is in order, or could not be looked at.
    """

    level: Level
    text: str


def error(text: str) -> Finding:
    """Return an error."""
    return Finding("error", text)


def warning(text: str) -> Finding:
    """Return a warning."""
    return Finding("warning", text)


def note(text: str) -> Finding:
    """Return a note."""
    return Finding("note", text)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return errors before warnings before notes, each in the order found, and none twice."""
    unique = list(dict.fromkeys(findings))
    return [finding for level in LEVELS for finding in unique if finding.level == level]
