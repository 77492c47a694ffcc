"""The results as a table in Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TABLE = "table.md"
PICTURE = "results.png"
_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")


def primary(task: Mapping[str, Any]) -> str:
    """Return the metric of a task that a table shows first."""
    metrics: Mapping[str, Any] = task["metrics"]
    return next((name for name, metric in metrics.items() if metric["primary"]), next(iter(metrics)))


def table(results: Mapping[str, Any]) -> str:
    """Return the table: a row a task and metric, a column a model, 95% intervals, and the paired comparisons."""
    models, tasks = list(results["models"]), results["tasks"]
    settings = results["settings"]
    how = (
        f"Computed in {settings['dtype']} on {settings['device']}, {settings['batch_size']} samples a batch. Brackets "
        f"are 95% intervals, by {settings['resamples']:,} draws of the bootstrap. An arrow says which way is better."
    )
    lines = [
        "# Evaluation",
        "",
        how,
        "",
        _row(["Task", "Metric", "Samples", "Examples", *models]),
        _row(["---", "---", "---:", "---:", *["---:"] * len(models)]),
    ]
    for name, task in tasks.items():
        for metric, about in task["metrics"].items():
            arrow = "↑" if about["higher_is_better"] else "↓"
            cells = [_cell(results["results"][model].get(name, {}).get(metric), about["unit"]) for model in models]
            label = f"**{metric}**" if metric == primary(task) else metric
            title = f"{_escaped(task['title'])} ({task['language']})"
            lines.append(_row([title, f"{label} {arrow}", f"{task['samples']}", f"{task['num_fewshot']}", *cells]))
    shown = [each for each in results["comparisons"] if each["metric"] == primary(tasks[each["task"]])]
    if shown:
        lines += [
            "",
            "## Differences",
            "",
            "On the same samples, in each metric's own unit (percentage points where that is %).",
            "",
            _row(["Task", "Metric", "Models", "Difference", "p"]),
            _row(["---", "---", "---", "---:", "---:"]),
        ]
    for each in shown:
        task = tasks[each["task"]]
        title = f"{_escaped(task['title'])} ({task['language']})"
        p_value = "" if each["p_value"] is None else f"{each['p_value']:.3f}"
        change = _signed(each["difference"], each["interval"])
        lines.append(_row([title, each["metric"], f"{each['a']} less {each['b']}", change, p_value]))
    if results["notes"]:
        lines += ["", "## Notes", "", *[f"- {_escaped(note)}" for note in results["notes"]]]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _digits(value: float, unit: str) -> str:
    return f"{value:.1f}" if unit in ("%", "BLEU", "chrF") else f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"


def _cell(found: Mapping[str, Any] | None, unit: str) -> str:
    if found is None or found["value"] is None:
        return "–"
    text = _digits(found["value"], unit)
    if found["interval"] is None or None in found["interval"]:
        return text
    low, high = (_digits(end, unit) for end in found["interval"])
    return f"{text} [{low}, {high}]"


def _signed(difference: float | None, interval: Sequence[float] | None) -> str:
    if difference is None:
        return "–"
    text = _change(difference)
    return text if interval is None else f"{text} [{_change(interval[0])}, {_change(interval[1])}]"


def _change(value: float) -> str:
    """Return a signed number with two decimals; a zero has no sign."""
    text = f"{value:+.2f}"
    return text[1:] if float(text) == 0 else text


def primary_table(results: Mapping[str, Any]) -> Any:
    """Return each task's primary metric as a table for the terminal (rich)."""
    from rich.table import Table

    models = list(results["models"])
    shown = Table(title="Evaluation", title_justify="left")
    shown.add_column("task", no_wrap=True)
    shown.add_column("metric", overflow="fold")
    for model in models:
        shown.add_column(model, justify="right", overflow="fold")
    for name, task in results["tasks"].items():
        metric = primary(task)
        unit = task["metrics"][metric]["unit"]
        values = [results["results"][model].get(name, {}).get(metric) for model in models]
        known = [found is not None and found["value"] is not None for found in values]
        cells = [_digits(found["value"], unit) if there else "–" for found, there in zip(values, known, strict=True)]
        shown.add_row(name, metric, *cells)
    return shown


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Draw each task's primary metric with its interval, a panel a task, a bar a model."""
    import matplotlib
    from matplotlib.figure import Figure

    tasks, models = results["tasks"], list(results["models"])
    columns = min(4, len(tasks))
    rows = -(-len(tasks) // columns)
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.2 * columns, 0.9 + rows * (1.1 + 0.28 * len(models))), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel, (name, task) in zip(panels.flat, tasks.items(), strict=False):
            metric = primary(task)
            about = task["metrics"][metric]
            bars = [(model, results["results"][model].get(name, {}).get(metric)) for model in models]
            bars = [(model, found) for model, found in bars if found is not None and found["value"] is not None]
            for place, (model, found) in enumerate(bars):
                interval = found["interval"]
                sides = None
                if interval is not None and None not in interval:
                    sides = [[max(0.0, found["value"] - interval[0])], [max(0.0, interval[1] - found["value"])]]
                colour = _COLOURS[models.index(model) % len(_COLOURS)]
                panel.barh(place, found["value"], color=colour, xerr=sides, ecolor="#333333", capsize=2, height=0.7)
            panel.set_yticks(range(len(bars)), [model for model, _ in bars])
            panel.invert_yaxis()
            panel.set_title(f"{task['title']} ({task['language']})", loc="left", fontweight="bold")
            panel.set_xlabel(f"{metric}, {about['unit']}{'' if about['higher_is_better'] else ' (less is better)'}")
            if about["unit"] == "%":
                panel.set_xlim(0, 100)
        for panel in list(panels.flat)[len(tasks) :]:
            panel.set_axis_off()
        figure.savefig(path, dpi=120, metadata={"Software": None})
