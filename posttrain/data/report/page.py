"""Puts the report of a data folder together: one HTML file that asks for nothing else and runs no script."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.data.report.gather import EXAMPLES
from posttrain.data.report.sets import PANELS, describe_set
from posttrain.data.report.settings import eval_sets, in_words
from posttrain.data.report.terms import all_terms, commercial_use
from posttrain.data.report.words import COMMERCIAL, count, readable_language, visible

_HERE = Path(__file__).resolve().parent
_SHOWN = 20_000  # characters of a text in the page, however long it is
_TURNS = 40
_CLIP, _LINES = 1200, 12  # characters or lines from which a text is clipped on screen

# Ten hues, light and dark, then the same ones paler: a source keeps its colour through both sets.
_HUES = (
    ("#2f6fb7", "#6ea8ea"),
    ("#d2761b", "#eda35c"),
    ("#2d8a5c", "#63c094"),
    ("#b23a5a", "#e57f9b"),
    ("#7357b5", "#ab94e6"),
    ("#0f8b94", "#55c3cb"),
    ("#8a6a1f", "#cdb061"),
    ("#c2559b", "#ea92ca"),
    ("#5a7d26", "#a2c46c"),
    ("#6a7280", "#a9b1be"),
)


def write_report(folder: Path, title: str) -> Path:
    """Write `report.html` into a finished data folder, from its files alone; equal files give equal bytes.

    Args:
        folder: Holds `summary.json` and the parquet files of each set.
        title: What the page calls the data, such as the name of the recipe.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(count=count, shown=_shown, language=readable_language)
    environment.tests.update(long=_is_long)
    environment.globals.update(most_turns=_TURNS, panels=PANELS, examples=EXAMPLES, commercial=COMMERCIAL)
    text = environment.get_template("report.html.jinja").render(_page(folder, title, summary))
    path = folder / "report.html"
    # A rejected record may hold half of a surrogate pair, which is shown as its escape.
    path.write_bytes((text + "\n").encode(errors="backslashreplace"))
    return path


def _is_long(text: str) -> bool:
    return len(text) > _CLIP or text.count("\n") > _LINES


def _shown(text: str) -> str:
    """Return what the page holds of a text."""
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}\n[… {count(len(text) - _SHOWN)} more characters are left out of this page]"
    return visible(text)


def _page(folder: Path, title: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    from markupsafe import Markup

    settings = summary.get("settings") or {}
    kinds = sorted(summary["sets"], key=lambda kind: kind != "sft")
    names = list(dict.fromkeys(source["name"] for kind in kinds for source in summary["sets"][kind]["sources"]))
    terms = all_terms(summary)
    return {
        "title": title,
        "seed": summary["seed"],
        "css": Markup(f"{_palette(len(names))}\n{(_HERE / 'report.css').read_text(encoding='utf-8').strip()}"),
        "colours": {name: f"c{number}" for number, name in enumerate(names)},
        "verdict": commercial_use(terms),
        "terms": terms,
        "against": eval_sets(settings),
        "masking": bool(settings.get("pii")),
        "settings": in_words(settings),
        "sets": [describe_set(folder / kind, kind, summary["sets"][kind], settings) for kind in kinds],
    }


def _palette(number: int) -> str:
    """Return the style sheet's colours of that many sources."""

    def variables(dark: bool) -> str:
        made = []
        for place in range(number):
            colour = _HUES[place % len(_HUES)][dark]
            paler = f"color-mix(in oklab, {colour} 55%, var(--surface))"
            made.append(f"--c{place}: {paler if place // len(_HUES) % 2 else colour};")
        return " ".join(made)

    return f":root {{ {variables(False)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {variables(True)} }} }}"
