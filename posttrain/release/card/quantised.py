"""The section of a variant's card on how it was quantised, and what that costs, beside the other variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from posttrain.release.card.inputs import CardInputs, Values
from posttrain.release.card.results import (
    PERCENT,
    POINTS,
    Row,
    decimals,
    model_name,
    rows,
    value_of,
)
from posttrain.release.card.text import NOT_MEASURED, code, number, plain, signed, size, table

HEAD = (
    "Variant",
    "Bits",
    "Group size",
    "Act order",
    "Damp",
    "Range",
    "Calibration",
    "Length",
    "Size",
    "Perplexity",
    "ExLlama",
    "Loads with",
    "Advice",
)


def quantised(inputs: CardInputs) -> dict[str, Any] | None:
    """Return what the section of a card says, or None for what is no variant."""
    variants, own = inputs.variants, inputs.variant
    if variants is None or own is None:
        return None
    base = variants["base"]
    working = [record for record in variants["variants"] if not record.get("failed")]
    perplexity = perplexity_of(base)
    tasks = _tasks(inputs, [record["name"] for record in working])
    return {
        "origin": plain(model_name(inputs, str(inputs.origin))),
        "table": table(HEAD, (_row(record, own) for record in working)),
        "own": own,
        "description": describe(own),
        "failed": [(code(each["name"]), plain(each["failed"])) for each in variants["variants"] if each.get("failed")],
        "base_size": size(base["bytes"]),
        "base_dtype": base["dtype"],
        "base_perplexity": None if perplexity is None else f"{perplexity:.2f}",
        "computed_in": base["perplexity"].get("computed_in") if isinstance(base["perplexity"], Mapping) else None,
        "held_out": variants.get("heldout") or {},
        "calibration": variants.get("calibration") or {},
        "tasks": _tasks_table(inputs, tasks, [record["name"] for record in working]),
        "difference_unit": _difference_unit(tasks),
    }


def describe(record: Values) -> str:
    """Say in a few words how a variant was quantised."""
    group = record["group_size"]
    grouped = "no groups" if group == -1 else f"groups of {group}"
    order = "with activation order" if record["desc_act"] else "without activation order"
    return f"{record['bits']}-bit GPTQ, {grouped}, {order}"


def weight_range(record: Values) -> str:
    """Say how the range of a group of weights was chosen."""
    shape = "symmetric" if record["sym"] else "asymmetric"
    return f"{shape}, searched ({number(record['mse'])})" if record["mse"] else shape


def _row(record: Values, own: Values) -> list[str]:
    name = code(record["name"])
    group = record["group_size"]
    return [
        f"**{name}**" if record["name"] == own["name"] else name,
        str(record["bits"]),
        "none" if group == -1 else str(group),
        "yes" if record["desc_act"] else "no",
        number(record["damp_percent"]),
        weight_range(record),
        plain(record["calibration"]),
        number(record["length"]),
        size(record["bytes"]),
        _perplexity(record),
        "yes" if record["exllama"] else "no",
        ", ".join(code(name) for name in working_backends(record)) or NOT_MEASURED,
        plain(record["advice"]),
    ]


def working_backends(record: Values) -> list[str]:
    """Return the backends with which a variant was seen to generate."""
    return [name for name, found in (record.get("backends") or {}).items() if found.get("generates")]


def perplexity_of(record: Values) -> float | None:
    """Return the perplexity of a variant, or of what it was made from, whose record has it with how it was computed."""
    found = record.get("perplexity")
    value = found.get("value") if isinstance(found, Mapping) else found
    return float(value) if isinstance(value, (int, float)) else None


def _perplexity(record: Values) -> str:
    value, ratio = perplexity_of(record), record.get("perplexity_ratio")
    if value is None:
        return NOT_MEASURED
    return f"{value:.2f}" + (f" ({signed(100 * (ratio - 1), 1)}%)" if ratio is not None else "")


def _tasks(inputs: CardInputs, names: Sequence[str]) -> list[Row]:
    """Return the primary metrics in which a variant was measured."""
    results = inputs.results
    if results is None:
        return []
    return [
        row for row in rows(results) if row.primary and any(value_of(results, name, row) is not None for name in names)
    ]


def _tasks_table(inputs: CardInputs, chosen: Sequence[Row], names: Sequence[str]) -> str | None:
    """Return the results of all variants and of what they were made from, the differences in brackets."""
    results, origin = inputs.results, str(inputs.origin)
    if results is None or not chosen:
        return None
    head = ["Variant", *(_head(row) for row in chosen)]
    lines = [[plain(model_name(inputs, origin)), *_origin_cells(results, origin, chosen)]]
    lines += [[code(name), *_cells(results, origin, name, chosen)] for name in names if results["results"].get(name)]
    return table(head, lines, numbers_from=1)


def _head(row: Row) -> str:
    of = f" ({row.language})" if row.language and row.language not in row.about["title"] else ""
    return plain(f"{row.about['title']}{of}, {row.label}")


def _origin_cells(results: Values, origin: str, chosen: Sequence[Row]) -> Iterator[str]:
    for row in chosen:
        value = value_of(results, origin, row)
        yield NOT_MEASURED if value is None else f"{value:.{decimals(row.unit)}f}"


def _cells(results: Values, origin: str, name: str, chosen: Sequence[Row]) -> Iterator[str]:
    for row in chosen:
        value, before, places = value_of(results, name, row), value_of(results, origin, row), decimals(row.unit)
        if value is None:
            yield NOT_MEASURED
        elif before is None:
            yield f"{value:.{places}f}"
        else:
            yield f"{value:.{places}f} ({signed(value - before, places)})"


def _difference_unit(chosen: Sequence[Row]) -> str:
    """Say what the differences between the results of variants are in."""
    percent = [row.unit == PERCENT for row in chosen]
    if all(percent):
        return POINTS
    return f"{POINTS} where the result is in percent, otherwise in its own unit" if any(percent) else "its own unit"
