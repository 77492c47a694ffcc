"""The evaluation section of a card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from posttrain.data.report.words import several
from posttrain.release.card.inputs import CardInputs, Values
from posttrain.release.card.paths import shown_path, without_folders
from posttrain.release.card.results import (
    PERCENT,
    POINTS,
    Row,
    decimals,
    interval_of,
    measured,
    model_name,
    rows,
    shown,
    sources_of,
    value_of,
)
from posttrain.release.card.text import NOT_MEASURED, code, plain, signed, table
from posttrain.release.split import placeless
from posttrain.stages.portable import portable

AVERAGE = "Average"


def evaluation(inputs: CardInputs) -> dict[str, Any] | None:
    """Return what the section of a card says, or None where this model was not measured."""
    results = inputs.results
    if results is None or not measured(inputs):
        return None
    models = shown(inputs)
    main = [row for row in rows(results) if row.primary and value_of(results, inputs.name, row) is not None]
    rest = [row for row in rows(results) if not row.primary and value_of(results, inputs.name, row) is not None]
    intervals = any(interval_of(results, model, row) for model in models for row in main)
    return {
        "main": _values_table(inputs, results, main, models, averages=True),
        "further": _values_table(inputs, results, rest, models, averages=False) if rest else None,
        "comparisons": _comparisons(inputs, results),
        "tasks": _tasks(inputs, main or rest),
        "level": results.get("settings", {}).get("level") if intervals else None,
        "notes": [*_judges(main), *_left_out(main), *_notes(inputs, results, models)],
        "settings": results.get("settings", {}),
    }


def _values_table(
    inputs: CardInputs, results: Values, chosen: Sequence[Row], models: Sequence[str], *, averages: bool
) -> str:
    head = ["Task", "Language", "Metric", *(plain(model_name(inputs, model)) for model in models)]
    lines = [
        [plain(row.about["title"]), row.language or NOT_MEASURED, _metric(row), *_cells(results, models, row)]
        for row in chosen
    ]
    if averages:
        lines += _averages(results, chosen, models)
    return table(head, lines, numbers_from=3)


def _metric(row: Row) -> str:
    return plain(row.label + ("" if row.kind["higher_is_better"] else ", lower is better"))


def _cells(results: Values, models: Sequence[str], row: Row) -> Iterator[str]:
    places = decimals(row.unit)
    for model in models:
        value, ends = value_of(results, model, row), interval_of(results, model, row)
        if value is None:
            yield NOT_MEASURED
        else:
            yield f"{value:.{places}f}" + (f" ({ends[0]:.{places}f}–{ends[1]:.{places}f})" if ends else "")


def _averages(results: Values, chosen: Sequence[Row], models: Sequence[str]) -> Iterator[list[str]]:
    """Yield the averages of what can be averaged: the results in percent of one language and one kind of task."""
    for of in alike(chosen):
        cells = []
        for model in models:
            values = [value_of(results, model, row) for row in of]
            known = [value for value in values if value is not None]
            whole = len(known) == len(values)  # an average over fewer tasks would be of something else
            cells.append(f"{sum(known) / len(known):.1f}" if whole else NOT_MEASURED)
        yield [f"{AVERAGE} of {len(of)}", of[0].language or NOT_MEASURED, "mean, %", *cells]


def alike(chosen: Sequence[Row]) -> list[list[Row]]:
    """Return the groups of two or more rows that are in percent, of one language and of one kind of task."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in chosen:
        if row.unit == PERCENT:
            groups.setdefault((row.language, str(row.about.get("kind"))), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _comparisons(inputs: CardInputs, results: Values) -> str | None:
    """Return a table of the differences between this model and others, each with its interval."""
    by_name = {(row.task, row.metric): row for row in rows(results) if row.primary}
    models = set(shown(inputs))
    lines = []
    for each in results.get("comparisons") or ():
        row = by_name.get((each["task"], each["metric"]))
        if row is None or inputs.name not in (each["a"], each["b"]) or not {each["a"], each["b"]} <= models:
            continue
        if each["difference"] is None:
            continue
        # always this model less the other
        sign = 1 if each["a"] == inputs.name else -1
        other, places = each["b"] if sign == 1 else each["a"], decimals(row.unit)
        ends = each.get("interval")
        between = sorted(sign * end for end in ends) if ends and None not in ends else None
        p_value = each.get("p_value")
        lines.append(
            [
                plain(model_name(inputs, other)),
                plain(row.about["title"]),
                row.language or NOT_MEASURED,
                signed(sign * each["difference"], places),
                f"{signed(between[0], places)} to {signed(between[1], places)}" if between else NOT_MEASURED,
                NOT_MEASURED if p_value is None else f"{p_value:.3f}",
                plain(POINTS if row.unit == PERCENT else row.unit),
            ]
        )
    if not lines:
        return None
    return table(["Compared with", "Task", "Language", "Difference", "Interval", "p", "Unit"], lines)


def _tasks(inputs: CardInputs, chosen: Sequence[Row]) -> str:
    lines = []
    for task, about in {row.task: row.about for row in chosen}.items():
        prompts = str(about.get("prompts_sha256") or "")
        source = next(iter(sources_of(inputs, task)), None)
        lines.append(
            [
                code(task),
                shown_path(source) if source is not None else NOT_MEASURED,
                plain(about["version"]),
                str(about["num_fewshot"]),
                f"{about['samples']:,}",
                code(prompts[:16]) if prompts else NOT_MEASURED,
            ]
        )
    head = ["Task", "Read from", "Version", "Examples in the prompt", "Samples", "SHA-256 of the prompts begins"]
    return table(head, lines)


def _judges(chosen: Sequence[Row]) -> list[str]:
    """Name the models that judged the answers to a task."""
    found = {}
    for row in chosen:
        judge = (row.about.get("options") or {}).get("judge")
        if judge:
            found[row.task] = str(placeless(portable(judge["model"])))
    return [f"{code(task)} was judged by {code(without_folders(model))}" for task, model in found.items()]


def _left_out(chosen: Sequence[Row]) -> list[str]:
    """Say which prompts a task was told to leave out: its result is not that of the whole set."""
    found = {row.task: (row.about.get("options") or {}).get("skip_instructions") for row in chosen}
    return [
        f"{code(task)} leaves out the prompts with {several(map(code, skipped))}"
        for task, skipped in found.items()
        if skipped
    ]


def _notes(inputs: CardInputs, results: Values, models: Sequence[str]) -> list[str]:
    """Return what results note of the answers of the models that are shown, under the names that the card has."""
    found = []
    for note in results.get("notes") or ():
        model, _, rest = str(note).partition(", ")
        if model in models:
            found.append(f"{plain(model_name(inputs, model))}, {plain(rest)}")
    return found
