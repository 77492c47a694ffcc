"""What the licences of the rows ask for, and whether the mix may be used commercially, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.data.licences import licence
from posttrain.data.report.words import SET_NAMES, percent, plural, several

_NOT_STATED = "not stated"
UNSTATED = "unknown"  # what `summary.json` counts rows under that state no licence


@dataclass(frozen=True, kw_only=True)
class Terms:
    """A licence among the rows written: what it asks for, whether it allows commercial use, and whose rows it covers.

    `commercial` is `yes`, `no`, `conditions` or `unknown`; `rows` counts those of all sets, repeats included.
    """

    id: str
    name: str
    commercial: str
    obligations: tuple[str, ...]
    share_alike: bool
    rows: int
    sources: tuple[str, ...]
    url: str | None

    @property
    def rows_state_none(self) -> bool:
        """Whether these are the rows that state no licence."""
        return self.id == _NOT_STATED


def all_terms(summary: Mapping[str, Any]) -> list[Terms]:
    """List the licences of all sets of a `summary.json`, the one with the most rows first."""
    rows: dict[str, int] = {}
    sources: dict[str, list[str]] = {}
    for part in summary["sets"].values():
        for source in part["sources"]:
            for name, number in source["licenses"].items():
                rows[name] = rows.get(name, 0) + number
                holders = sources.setdefault(name, [])
                if source["name"] not in holders:
                    holders.append(source["name"])
    return [_terms(name, rows[name], sources[name]) for name in sorted(rows, key=lambda name: (-rows[name], name))]


def _terms(name: str, rows: int, sources: Sequence[str]) -> Terms:
    known = licence(None if name == UNSTATED else name)
    return Terms(
        id=_NOT_STATED if name == UNSTATED else name,
        name="no licence stated" if name == UNSTATED else known.name,
        commercial=known.commercial,
        obligations=known.obligations,
        share_alike=known.share_alike,
        rows=rows,
        sources=tuple(sources),
        url=known.url,
    )


def commercial_use(terms: Sequence[Terms]) -> tuple[str, str]:
    """Say whether the mix may be used commercially: `no`, `unknown`, `conditions` or `yes`, and why, in sentences."""
    total = sum(each.rows for each in terms)
    by_answer = {answer: [each for each in terms if each.commercial == answer] for answer in ("no", "unknown")}
    tied = [each for each in terms if each.commercial == "conditions"]
    if by_answer["no"]:
        return "no", f"This mix may not be used commercially, because {_covered(by_answer['no'], total)} forbid it."
    if by_answer["unknown"]:
        return "unknown", (
            "Whether this mix may be used commercially is not known: "
            f"{_covered(by_answer['unknown'], total)} have terms that this package does not know. Read them first."
        )
    if tied:
        return "conditions", (
            "None of the licences recorded for this mix forbids commercial use, but "
            f"{_covered(tied, total)} allow it on conditions, which are listed below."
        )
    return "yes", (
        "None of the licences recorded for this mix forbids commercial use. What they ask for is listed below."
    )


def _covered(terms: Sequence[Terms], total: int) -> str:
    """Name licences with what they cover: `the terms of 10 rows (0.5%), CC-BY-NC-4.0 (from magpie),`."""
    rows = sum(each.rows for each in terms)
    named = several(f"{each.id} (from {several(each.sources)})" for each in terms)
    return f"the licences of {plural(rows, 'row')} ({percent(rows, total)}), {named},"


def forbidding(part: Mapping[str, Any]) -> int:
    """Count the rows of one set under licences that forbid commercial use."""
    return sum(
        number
        for source in part["sources"]
        for name, number in source["licenses"].items()
        if name != UNSTATED and licence(name).commercial == "no"
    )


def set_name(name: str) -> str:
    """Return what the report calls a set."""
    return SET_NAMES.get(name, name)
