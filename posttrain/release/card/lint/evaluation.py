"""The tables of results: columns headed with models' names, values and averages as in `results/eval.json`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from posttrain.preflight.findings import Finding, error
from posttrain.release.card.evaluation import AVERAGE
from posttrain.release.card.lint.facts import Facts
from posttrain.release.card.lint.markdown import Card, Table, words
from posttrain.release.card.lint.numbers import NUMBER, rounds_to
from posttrain.release.card.results import PERCENT, POINTS, metric_label
from posttrain.release.card.text import NOT_MEASURED, language_name, one_line

VALUES = ("Task", "Language", "Metric")
COMPARISONS = ("Compared with", "Task", "Language", "Difference", "Interval", "p", "Unit")
_VALUE = re.compile(r"(?P<value>\d+(?:\.\d+)?)(?: \((?P<low>\d+(?:\.\d+)?)–(?P<high>\d+(?:\.\d+)?)\))?")


def check(card: Card, facts: Facts) -> Iterator[Finding]:
    """Check each table of results cell by cell."""
    tables = card.table(*VALUES)
    if not facts.results:
        if tables:
            yield error("there are results on the card, and no results/eval.json")
        return
    of_this = facts.results.get("results", {}).get(facts.name)
    if of_this and not tables:
        yield error("results/eval.json has results of this model, and there is no table of them")
    for table in tables:
        yield from _table(table, facts)
    for table in card.table(*COMPARISONS):
        yield from _comparisons(table, facts)


def _table(table: Table, facts: Facts) -> Iterator[Finding]:
    by_name = {name: key for key, name in facts.model_names().items()}
    heads = [words(cell) for cell in table.head[len(VALUES) :]]
    for head in heads:
        if head not in by_name:
            yield error(
                f"a column of results is headed {head!r}, which is no model's name; there are {', '.join(by_name)}"
            )
    if len(set(heads)) < len(heads):
        yield error("two columns of results have the same head")
    if facts.results["results"].get(facts.name) and facts.model_names()[facts.name] not in heads:
        yield error(f"no column of results is headed {facts.model_names()[facts.name]!r}, the name of this model")
    above: list[tuple[str, str, str]] = []  # task, metric and language of the rows so far
    for row in table.rows:
        if len(row) != len(table.head):
            yield error(f"the row {words(row[0])!r} of results has not as many cells as the table has columns")
            continue
        label, language, metric = (words(cell) for cell in row[: len(VALUES)])
        cells = row[len(VALUES) :]
        if label.startswith(AVERAGE):
            yield from _average(label, language, above, heads, cells, facts, by_name)
            continue
        found = find_metric(facts, label, language, metric)
        if found is None:
            yield error(f"the row {label!r} ({language}, {metric}) is of no task in results/eval.json")
            continue
        above.append((*found, language))
        for head, cell in zip(heads, cells, strict=False):
            if head in by_name:
                yield from _cell(f"{label}, {head}", words(cell), facts, by_name[head], *found)


def find_metric(facts: Facts, title: str, language: str, written: str) -> tuple[str, str] | None:
    """Return the task and metric that a row is of: by title, language, and the metric's name and unit."""
    for task, about, metric, kind in facts.metrics():
        spoken = language_name(str(about["language"])) if about.get("language") else NOT_MEASURED
        named = metric_label(metric, kind["unit"])
        if one_line(about["title"]) == title and spoken == language and written in (named, f"{named}, lower is better"):
            return task, metric
    return None


def _cell(where: str, written: str, facts: Facts, model: str, task: str, metric: str) -> Iterator[Finding]:
    value = facts.value(model, task, metric)
    if written == NOT_MEASURED:
        if value is not None:
            yield error(f"{where}: a dash, and results/eval.json has {value:g}")
        return
    match = _VALUE.fullmatch(written)
    if match is None or value is None:
        yield error(f"{where}: {written!r} is not in results/eval.json")
        return
    if not rounds_to(value, match["value"]):
        yield error(f"{where}: {match['value']}, and results/eval.json has {value:g}")
    interval = facts.results["results"][model][task][metric].get("interval")
    interval = interval if interval and None not in interval else None
    if match["low"] is not None and not (
        interval and rounds_to(interval[0], match["low"]) and rounds_to(interval[1], match["high"])
    ):
        yield error(f"{where}: the interval {match['low']}–{match['high']} is not that of results/eval.json")


def _average(
    label: str,
    language: str,
    above: Sequence[tuple[str, str, str]],
    heads: Sequence[str],
    cells: Sequence[str],
    facts: Facts,
    by_name: dict[str, str],
) -> Iterator[Finding]:
    """Check an average over the rows above it: those in percent, in its language, that are of one kind of task."""
    tasks = facts.results["tasks"]
    of: dict[str, list[tuple[str, str]]] = {}
    for task, metric, spoken in above:
        if spoken == language and tasks[task]["metrics"][metric]["unit"] == PERCENT:
            of.setdefault(str(tasks[task].get("kind")), []).append((task, metric))
    problems = [list(_wrong_average(label, language, each, heads, cells, facts, by_name)) for each in of.values()]
    if not problems:
        yield error(f"{label} ({language}): there are no results in percent above it")
    else:
        yield from min(problems, key=len)


def _wrong_average(
    label: str,
    language: str,
    of: Sequence[tuple[str, str]],
    heads: Sequence[str],
    cells: Sequence[str],
    facts: Facts,
    by_name: dict[str, str],
) -> Iterator[Finding]:
    if label != f"{AVERAGE} of {len(of)}":
        yield error(f"{label} ({language}): there are {len(of)} results in percent above it")
    for head, cell in zip(heads, cells, strict=False):
        written = words(cell)
        values = [facts.value(by_name[head], task, metric) for task, metric in of] if head in by_name else []
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            if written != NOT_MEASURED:
                yield error(f"{label} ({language}), {head}: {written}, and not all of it was measured")
        elif not NUMBER.fullmatch(written) or not rounds_to(sum(known) / len(known), written):
            yield error(f"{label} ({language}), {head}: {written}, and the average is {sum(known) / len(known):.2f}")


def _comparisons(table: Table, facts: Facts) -> Iterator[Finding]:
    by_name = {name: key for key, name in facts.model_names().items()}
    for row in table.rows:
        if len(row) != len(COMPARISONS):
            yield error("a comparison has not as many cells as its table has columns")
            continue
        other, title, language, difference, interval, p_value, unit = (words(cell) for cell in row)
        if other not in by_name:
            yield error(f"a comparison is with {other!r}, which is no model's name")
            continue
        where = f"{title} ({language}), compared with {other}"
        records = list(_records(facts, by_name[other], title, language))
        if not records:
            yield error(f"{where}: there is no such comparison in results/eval.json")
            continue
        if not any(_matches(facts, record, difference, interval, p_value) for record, _ in records):
            yield error(f"{where}: {difference} ({interval}; p {p_value}) is not in results/eval.json")
        if any(kind["unit"] == PERCENT for _, kind in records) and unit != POINTS:
            yield error(f"{where}: a difference of percentages is in {POINTS}, not in {unit!r}")


def _records(facts: Facts, other: str, title: str, language: str) -> Iterator[tuple[Any, Any]]:
    for record in facts.results.get("comparisons") or ():
        about = facts.results["tasks"].get(record["task"], {})
        spoken = language_name(str(about["language"])) if about.get("language") else NOT_MEASURED
        kind = (about.get("metrics") or {}).get(record["metric"])
        named = kind is not None and one_line(about["title"]) == title and spoken == language
        if named and {record["a"], record["b"]} == {facts.name, other}:
            yield record, kind


def _matches(facts: Facts, record: Any, difference: str, interval: str, p_value: str) -> bool:
    sign = 1 if record["a"] == facts.name else -1
    known = record.get("p_value")
    if p_value != NOT_MEASURED if known is None else not (NUMBER.fullmatch(p_value) and rounds_to(known, p_value)):
        return False
    if record["difference"] is None or not _equal(sign * record["difference"], difference):
        return False
    ends = record.get("interval")
    if not ends or None in ends:
        return interval == NOT_MEASURED
    low, _, high = interval.partition(" to ")
    one, other = sorted(sign * end for end in ends)
    return bool(high) and _equal(one, low) and _equal(other, high)


def _equal(value: float, written: str) -> bool:
    """Compare a value with a signed number; of one that is rounded to 0 the sign does not matter."""
    match = NUMBER.fullmatch(written)
    if match is None or not rounds_to(value, match["digits"]):
        return False
    negative = match["sign"] in ("-", "−")
    return float(match["digits"]) == 0 or negative == (value < 0)
