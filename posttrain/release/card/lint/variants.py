"""The tables of variants: each row as in `results/variants.json`, and its words no other than its figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from posttrain.preflight.findings import Finding, error
from posttrain.release.card.lint.facts import Facts
from posttrain.release.card.lint.markdown import Card, Table, code_in, words
from posttrain.release.card.lint.numbers import NUMBER, rounds_to
from posttrain.release.card.quantised import HEAD, perplexity_of, weight_range, working_backends
from posttrain.release.card.results import metric_label
from posttrain.release.card.text import MINUS, NOT_MEASURED, language_name, number, one_line, size

_GROUP = re.compile(
    r"\bgroups? (?:size )?(?:of )?(?P<words>\d+)\b|(?P<suffix>(?<=-)-1|\b\d+)g\b|(?P<none>\b(?:no|without) groups?\b)",
    flags=re.IGNORECASE,
)
_BITS = re.compile(r"\b(\d+)[- ]bits?\b", flags=re.IGNORECASE)
_CHANGE = re.compile(rf"(?P<value>[\d.]+)(?: \((?P<sign>[+{MINUS}-]?)(?P<change>[\d.]+)(?P<percent>%?)\))?")


def check(card: Card, facts: Facts) -> Iterator[Finding]:
    """Check the tables of variants, and the sentences about this one."""
    tables = card.table(*HEAD[:3])
    if facts.variant is None:
        if tables:
            yield error("there is a table of variants, and this is no variant")
        return
    if not tables:
        yield error("there is no table of the variants")
    for table in tables:
        for row in table.rows:
            yield from _row(table, row, facts)
        shown = {name for row in table.rows for name in code_in(row[0])}
        if facts.name not in shown:
            yield error(f"this variant, {facts.name}, is not in the table of variants")
    for table in card.table("Variant"):
        if table not in tables:
            yield from _results(table, facts)
    for section, sentence in card.sentences:
        if section == "Quantisation" and words(sentence).startswith("This variant"):
            yield from _words("the description of this variant", sentence, facts.variant)
    for sentence in (text for section, text in card.sentences if section == card.title):
        yield from _words("the head of the card", sentence, facts.variant)


def _row(table: Table, row: list[str], facts: Facts) -> Iterator[Finding]:
    names = code_in(row[0])
    record = next((each for each in facts.variants["variants"] if each["name"] in names), None)
    if record is None:
        yield error(f"the row {words(row[0])!r} is of no variant in results/variants.json")
        return
    cells = dict(zip((words(cell) for cell in table.head), row, strict=False))
    for head, written in cells.items():
        expected = _expected(head, record)
        if expected is not None and words(written) != expected:
            yield error(
                f"{record['name']}: {head.lower()} is {words(written)}, and results/variants.json makes it {expected}"
            )
    yield from _perplexity(record, words(cells.get("Perplexity", NOT_MEASURED)))
    for head in ("Variant", "Advice"):
        yield from _words(
            f"{record['name']}: the {'name' if head == 'Variant' else 'advice'}", cells.get(head, ""), record
        )


def _expected(head: str, record: Mapping[str, Any]) -> str | None:
    group = record["group_size"]
    return {
        "Bits": str(record["bits"]),
        "Group size": "none" if group == -1 else str(group),
        "Act order": "yes" if record["desc_act"] else "no",
        "Damp": number(record["damp_percent"]),
        "Range": weight_range(record),
        "Calibration": one_line(record["calibration"]),
        "Length": number(record["length"]),
        "Size": size(record["bytes"]),
        "ExLlama": "yes" if record["exllama"] else "no",
        "Loads with": ", ".join(working_backends(record)) or NOT_MEASURED,
    }.get(head)


def _words(where: str, markdown: str, record: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that a text speaks of the group size and the bits that the variant has."""
    text, group = words(markdown), record["group_size"]
    for match in _GROUP.finditer(text):
        said = -1 if match["none"] else int(match["words"] or match["suffix"])
        if said != group:
            has = "no groups" if group == -1 else f"groups of {group}"
            yield error(f"{where} speaks of {match[0].strip()!r}, and the variant {record['name']} has {has}")
    for match in _BITS.finditer(text):
        if int(match[1]) != record["bits"]:
            yield error(f"{where} speaks of {match[0]!r}, and the variant {record['name']} has {record['bits']} bits")


def _perplexity(record: Mapping[str, Any], written: str) -> Iterator[Finding]:
    value, ratio = perplexity_of(record), record.get("perplexity_ratio")
    if written == NOT_MEASURED:
        return
    for match in NUMBER.finditer(written):
        if match["percent"]:
            increase = None if ratio is None else 100 * (ratio - 1)
            if increase is None or not rounds_to(increase, match["digits"]) or _wrong_sign(increase, match):
                yield error(f"{record['name']}: the change of perplexity, {match[0]}, is not in results/variants.json")
        elif value is None or not rounds_to(value, match["digits"]):
            yield error(f"{record['name']}: the perplexity {match[0]} is not in results/variants.json")


def _wrong_sign(value: float, match: re.Match[str]) -> bool:
    return float(match["digits"]) != 0 and (match["sign"] in ("-", MINUS)) != (value < 0)


def _results(table: Table, facts: Facts) -> Iterator[Finding]:
    """Check the results of all variants beside those of what they were made from."""
    columns = [_metric(words(head), facts) for head in table.head[1:]]
    for head, column in zip(table.head[1:], columns, strict=True):
        if column is None:
            yield error(f"the column {words(head)!r} is of no task in results/eval.json")
    origin, names = str(facts.card.get("origin")), facts.model_names()
    for row in table.rows:
        label = words(row[0])
        model = next((key for key, name in names.items() if name == label), None)
        if model is None:
            yield error(f"the row {label!r} is no model's name")
            continue
        for column, cell in zip(columns, row[1:], strict=False):
            if column is not None:
                yield from _result(f"{label}, {column[0]}", words(cell), facts, model, origin, column)


def _metric(head: str, facts: Facts) -> tuple[str, str] | None:
    for task, about, metric, kind in facts.metrics():
        title, spoken = one_line(about["title"]), language_name(str(about.get("language") or ""))
        of = f" ({spoken})" if spoken and spoken not in title else ""
        if head == one_line(f"{title}{of}, {metric_label(metric, kind['unit'])}"):
            return task, metric
    return None


def _result(
    where: str, written: str, facts: Facts, model: str, origin: str, column: tuple[str, str]
) -> Iterator[Finding]:
    value, before = facts.value(model, *column), facts.value(origin, *column)
    match = _CHANGE.fullmatch(written)
    if written == NOT_MEASURED and value is None:
        return
    if match is None or value is None or not rounds_to(value, match["value"]):
        yield error(f"{where}: {written!r}, and results/eval.json has {value}")
    elif match["percent"]:
        yield error(f"{where}: {written!r}: a difference has no percent sign; it is in percentage points")
    elif match["change"] is not None:
        change = float("nan") if before is None else value - before
        turned = bool(float(match["change"])) and (match["sign"] in ("-", MINUS)) != (change < 0)
        if turned or not rounds_to(change, match["change"]):
            yield error(f"{where}: the difference {match['change']} is not that of results/eval.json")
