"""The dataset card of a data folder, in the form that the hub reads: a YAML head, then Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import posttrain
from posttrain.data.licences import card, hub_names, normalised_name
from posttrain.data.report import tables
from posttrain.data.report.gather import Measures, measure
from posttrain.data.report.settings import entry_settings, eval_sets, in_words
from posttrain.data.report.terms import UNSTATED, Terms, all_terms, commercial_use, set_name
from posttrain.data.report.words import COMMERCIAL, STEPS, count, losses, percent, plural, sentence, several, step_name
from posttrain.data.rows import SEVERAL_LANGUAGES, UNKNOWN_LANGUAGE

_TEMPLATES = Path(__file__).resolve().parent / "templates"

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))

_PURPOSES = {"sft": "conversations for supervised fine-tuning", "preference": "preference pairs for DPO"}
_TURNS = "list of {role, content}"
_ABOUT = (
    ("source", "string", "the source, as the recipe calls it"),
    ("language", "string", f"ISO code; `{UNKNOWN_LANGUAGE}` not stated, `{SEVERAL_LANGUAGES}` several"),
    ("license", "string", "the licence of the row, null where none is stated"),
    ("meta", "string", "what else the source says of the row, as JSON"),
)
_FIELDS = {
    "sft": (
        ("id", "string", "32 hex digits, from the content"),
        ("messages", _TURNS, "a system turn at most, then user and assistant in turn; the assistant is last"),
        *_ABOUT,
    ),
    "preference": (
        ("id", "string", "32 hex digits, from the content"),
        ("prompt", _TURNS, "the conversation up to the user's last turn"),
        ("chosen", _TURNS, "the better answer, one assistant turn"),
        ("rejected", _TURNS, "the other answer, one assistant turn"),
        ("margin", "double", "how much better, in the source's own scale; null where it has none"),
        *_ABOUT,
    ),
}


def write_card(folder: Path, title: str) -> Path:
    """Write `README.md` into a finished data folder, from its files alone; equal files give equal bytes.

    Args:
        folder: Holds `summary.json` and the parquet files of each set.
        title: What the card calls the data, such as the name of the recipe.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    environment = Environment(  # Markdown, so nothing is escaped but what `_cell` does
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(plural=plural, cell=_cell)
    body = environment.get_template("card.md.jinja").render(_values(folder, title, summary))
    path = folder / "README.md"
    path.write_text(f"---\n{_head(title, summary)}\n---\n\n{body.rstrip()}\n", encoding="utf-8", newline="\n")
    return path


def _cell(text: Any) -> str:
    """Write a text so that it stays within a table's cell, and is not taken for HTML."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())


def _head(title: str, summary: Mapping[str, Any]) -> str:
    """Return the YAML that the hub reads: licences, languages, sizes, and which files make up which split."""
    from huggingface_hub import DatasetCardData

    sets = summary["sets"]
    configs = [
        {
            "config_name": kind,
            "data_files": [
                {"split": split, "path": f"{kind}/{split}.parquet"}
                for split in ("train", "validation")
                if sets[kind][split]
            ],
        }
        for kind in _kinds(summary)
    ]
    languages = {code for part in sets.values() for source in part["sources"] for code in source["languages"]}
    rows = sum(part["train"] + part["validation"] for part in sets.values())
    data = DatasetCardData(
        pretty_name=f"{title}: training data",
        language=sorted(languages - {UNKNOWN_LANGUAGE, SEVERAL_LANGUAGES}) or None,
        task_categories=["text-generation"],
        size_categories=next((name for limit, name in _SIZES if rows < limit), "10M<n<100M"),
        configs=configs,
        tags=["posttrain", *(tag for kind, tag in (("sft", "sft"), ("preference", "dpo")) if kind in sets)],
        **_hub_licence(all_terms(summary)),
    )
    return str(data.to_yaml(line_break="\n"))


def _hub_licence(terms: Sequence[Terms]) -> dict[str, Any]:
    """Return the licences under the hub's names, or `other` where it has no name for one of them."""
    names = hub_names(None if each.rows_state_none else each.id for each in terms)
    if names:
        return {"license": names[0] if len(names) == 1 else names}
    return {"license": "other", "license_name": "see-the-card"}


def _kinds(summary: Mapping[str, Any]) -> list[str]:
    return sorted(summary["sets"], key=lambda kind: kind != "sft")


def _values(folder: Path, title: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    settings, sets = summary.get("settings") or {}, summary["sets"]
    kinds, terms = _kinds(summary), all_terms(summary)
    return {
        "title": title,
        "version": posttrain.__version__,
        "seed": summary["seed"],
        "purpose": sentence(several(_PURPOSES[kind] for kind in kinds)),
        "verdict": commercial_use(terms)[1],
        "terms": terms,
        "commercial": COMMERCIAL,
        "against": eval_sets(settings),
        "settings": in_words(settings),
        "sizes": [
            (set_name(kind), *(count(sets[kind][split]) for split in ("train", "validation", "rejected")))
            for kind in kinds
        ],
        "sets": [_set(kind, sets[kind], measure(folder / kind / "train.parquet")) for kind in kinds],
        "sources": _sources([source for kind in kinds for source in sets[kind]["sources"]], settings),
    }


def _set(kind: str, part: Mapping[str, Any], rows: Measures) -> dict[str, Any]:
    shares = dict(tables.shares(rows, [source["name"] for source in part["sources"]]))
    removed = [
        (f"{step_name(step)}: {STEPS[step]}" if step in STEPS else step_name(step), reason, count(number))
        for step, reasons in losses(part["sources"]).items()
        for reason, number in reasons.items()
    ]
    if sampled_out := sum(source["sampled_out"] for source in part["sources"]):
        removed.append(("mixing: not taken into the mixture", "fraction or max_rows of the source", count(sampled_out)))
    repeats = sum(source["train_repeats"] for source in part["sources"])
    return {
        "name": set_name(kind),
        "sources": [_source_row(source, shares) for source in part["sources"]],
        "repeated": f"{plural(repeats, 'repeat')} included" if repeats else "each row once",
        "trained": "both answers" if kind == "preference" else "the assistant's turns",
        "removed": removed,
        "fields": _FIELDS[kind],
    }


def _source_row(source: Mapping[str, Any], shares: Mapping[str, list[str]]) -> list[str]:
    provenance = source["provenance"]
    revision = f" at revision {provenance['revision']}" if provenance.get("revision") else ""
    total = sum(source["licenses"].values())
    licences = [
        ("not stated" if name == UNSTATED else name) + (f" ({percent(rows, total)})" if rows < total else "")
        for name, rows in source["licenses"].items()
    ]
    _, of_rows, _, of_characters, _ = shares.get(source["name"], ["0", "–", "0", "–", "–"])
    return [
        source["name"],
        f"{provenance['path']}{revision}",
        several(licences) or "–",
        count(source["read"]),
        count(source["train"] + source["train_repeats"]),
        count(source["validation"]),
        of_rows,
        of_characters,
    ]


def _sources(sources: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Say of each source what its card knows and how the recipe takes it; one that both sets use comes once."""
    made: dict[str, dict[str, Any]] = {}
    for source in sources:
        known = card(source["source"])
        options = entry_settings(settings, source["entry"])
        about = made.setdefault(
            source["name"],
            {
                "name": source["name"],
                "title": known.title if known else "",
                "url": known.url if known else "",
                "attribution": known.attribution if known else "",
                "notes": list(known.obligations) if known else [],
            },
        )
        if known and known.non_commercial_subsets:
            dropped = {normalised_name(name) for name in options.get("drop_subsets") or []}
            left_out: list[str] = []
            kept: list[str] = []
            for subset in known.non_commercial_subsets:
                gone = any(normalised_name(name) in dropped for name in (subset.name, subset.matches))
                (left_out if gone else kept).append(subset.title)
            if left_out:
                about["notes"].append(f"Left out as non-commercial: {several(left_out)}.")
            if kept:
                about["notes"].append(f"Not left out, and not free for commercial use: {several(kept)}.")
        if options:
            words = ", ".join(f"`{key}: {_plain(value)}`" for key, value in options.items())
            about["notes"].append(f"Taken with {words}.")
    return [about for about in made.values() if about["title"] or about["notes"]]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
