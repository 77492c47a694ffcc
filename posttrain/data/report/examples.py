"""Picks rejected rows and duplicates to show, and counts what only their tables say."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.data.report.gather import tables
from posttrain.data.report.words import step_order

if TYPE_CHECKING:
    import numpy as np

CONTAMINATED = 40  # rows shown a set
PER_REASON = 3
PAIRS = 20  # duplicates shown, of exact and of near ones each
BINS = 50  # of the similarity, from 0 to 1


@dataclass
class RejectedRows:
    """Rejected rows to show by step and reason, those with an evaluation's prompt apart, and hits by evaluation set."""

    examples: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    contaminated: list[dict[str, Any]] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)
    items: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def gather_rejected(path: Path, eval_sets: Sequence[str]) -> RejectedRows:
    """Read `rejected.parquet`; `eval_sets` are the labels that the details of contaminated rows begin with."""
    found = RejectedRows()
    chosen: dict[int, tuple[str, str]] = {}
    best: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    start = 0
    for table in tables(path, ["step", "reason", "detail"]):
        steps, reasons = table["step"].to_pylist(), table["reason"].to_pylist()
        hashes = _mixed(start, table.num_rows).tolist()
        for place, key in enumerate(zip(steps, reasons, strict=True)):
            kept = best[key]
            limit = CONTAMINATED if key[0] == "decontaminate" else PER_REASON
            if len(kept) < limit or hashes[place] < kept[-1][0]:
                kept.append((hashes[place], start + place))
                kept.sort()
                del kept[limit:]
        if "decontaminate" in steps:
            for step, detail in zip(steps, table["detail"].to_pylist(), strict=True):
                if step == "decontaminate":
                    label, item = split_hit(detail, eval_sets)
                    found.hits[label] += 1
                    found.items[label].add(item)
        start += table.num_rows
    for key, places in best.items():
        chosen.update({place: key for _, place in places})
    start = 0
    for table in tables(path) if chosen else ():
        for place in sorted(place for place in chosen if start <= place < start + table.num_rows):
            row = table.slice(place - start, 1).to_pylist()[0]
            found.examples.setdefault(chosen[place], []).append(row)
        start += table.num_rows
    contaminated = [key for key in found.examples if key[0] == "decontaminate"]
    for key in sorted(contaminated):
        found.contaminated += found.examples.pop(key)
    del found.contaminated[CONTAMINATED:]
    found.examples = dict(sorted(found.examples.items(), key=lambda item: (step_order(item[0][0]), item[0][1])))
    return found


def _mixed(start: int, length: int) -> np.ndarray:
    """Return a scrambled number for each place in a file, uint64: the mixing function of splitmix64."""
    import numpy as np

    value = np.arange(start + 1, start + length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def split_hit(detail: str, eval_sets: Sequence[str]) -> tuple[str, str]:
    """Split a contaminated row's detail into the label of the evaluation set and what it says of the item."""
    for label in sorted(eval_sets, key=len, reverse=True):
        if detail.startswith(f"{label} "):
            return label, detail.removeprefix(label).strip()
    label, _, item = detail.partition(" ")
    return label, item


@dataclass
class DuplicateRows:
    """Duplicates counted by step, source and the source of the row that stayed, and some with their texts.

    `similarity` counts near-duplicates in `BINS` equal bins from 0 to 1.
    """

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    similarity: list[int] = field(default_factory=lambda: [0] * BINS)
    examples: list[dict[str, Any]] = field(default_factory=list)


def gather_duplicates(path: Path) -> DuplicateRows:
    """Read `duplicates.parquet`; a folder that has none gives nothing."""
    import numpy as np
    import pyarrow.compute as pc

    found = DuplicateRows()
    if not path.is_file():
        return found
    similarity = np.zeros(BINS, "int64")
    shown: Counter[str] = Counter()
    for table in tables(path):
        found.counts.update(zip(*(table[name].to_pylist() for name in ("step", "source", "kept_source")), strict=True))
        near = table.filter(pc.equal(table["step"], "near"))["similarity"].drop_null().to_numpy()
        similarity += np.histogram(near, BINS, (0.0, 1.0))[0]
        for row in table.filter(pc.is_valid(table["removed_text"])).to_pylist():
            if shown[row["step"]] < PAIRS:
                shown[row["step"]] += 1
                found.examples.append(row)
    found.similarity = similarity.tolist()
    order = ("near", "semantic", "exact")
    found.examples.sort(key=lambda row: (order.index(row["step"]), -(row["similarity"] or 0), row["removed_id"]))
    return found


def as_conversation(record: str) -> tuple[dict[str, Any] | None, str]:
    """Read a rejected record as a row, if it is one, and as text to print otherwise."""
    try:
        value = json.loads(record)
    except ValueError:
        return None, record
    if isinstance(value, dict):
        turns = value.get("messages", value.get("prompt"))
        if isinstance(turns, list) and turns and all(_is_turn(turn) for turn in turns):
            answers = [value[key] for key in ("chosen", "rejected") if key in value]
            if all(isinstance(several, list) and all(_is_turn(turn) for turn in several) for several in answers):
                return value, ""
    return None, json.dumps(value, ensure_ascii=False, indent=2)


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
