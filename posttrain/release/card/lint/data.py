"""The tables of the training data: rows and shares as in `results/data.json` and the manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from posttrain.data.report.terms import UNSTATED
from posttrain.data.report.words import count, percent
from posttrain.preflight.findings import Finding, error
from posttrain.release.card.lint.facts import Facts
from posttrain.release.card.lint.markdown import Card, words
from posttrain.release.card.text import NOT_MEASURED, one_line

HEAD = ("Source", "Read from", "Licence of the rows")
_TOKENISED = {"sft": "tokenize-sft", "preference": "tokenize-preference"}


def check(card: Card, facts: Facts) -> Iterator[Finding]:
    """Check each row of each set."""
    sets = facts.data.get("sets", {})
    for table in card.table(*HEAD):
        heads = [words(cell) for cell in table.head]
        for row in table.rows:
            name = words(row[0])
            cells = dict(zip(heads, map(words, row), strict=False))
            candidates = [
                _expected(facts, kind, part, source)
                for kind, part in sets.items()
                for source in part["sources"]
                if one_line(source["name"]) == name
            ]
            if not candidates:
                yield error(f"training data: the source {name!r} is not in results/data.json")
            elif stray := _licences(cells.get(HEAD[2], ""), name, sets):
                yield error(f"training data: {name}: the licence {stray!r} is not in results/data.json")
            elif not any(all(cells.get(head) == value for head, value in each.items()) for each in candidates):
                nearest = candidates[0]
                wrong = [
                    f"{head} {cells.get(head)} instead of {value}"
                    for head, value in nearest.items()
                    if cells.get(head) != value
                ]
                yield error(f"training data: {name}: {', '.join(wrong)}, by results/data.json")


def _licences(cell: str, name: str, sets: Mapping[str, Any]) -> str | None:
    """Return what a cell names as a licence and no source of this name has, or None."""
    sources = [source for part in sets.values() for source in part["sources"] if one_line(source["name"]) == name]
    known = {one_line("not stated" if id == UNSTATED else id) for source in sources for id in source["licenses"]}
    if not known and cell == NOT_MEASURED:  # a source of which no row was taken
        return None
    written = re.sub(r" \([<>]?[\d.]+%\)", "", cell)
    for id in sorted(known, key=len, reverse=True):
        written = written.replace(id, "")
    return re.sub(r"^(?:,|\s|and\b)+|(?:,|\s|\band)+$", "", written) or None


def _expected(facts: Facts, kind: str, part: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, str]:
    train = source["train"] + source["train_repeats"]
    tokens = (facts.manifests.get(_TOKENISED[kind], {}).get("metrics") or {}).get("sources") or {}
    share = tokens.get(source["name"], {}).get("trained_token_share")
    return {
        "Rows": count(train),
        "Share of rows": percent(train, part["train"]),
        "Share of trained tokens": NOT_MEASURED if share is None else percent(share, 1),
        "Held out": count(source["validation"]),
    }
