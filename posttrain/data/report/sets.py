"""What the report says of one set: the values that its part of the page is filled with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.data.report import figures, tables
from posttrain.data.report.examples import as_conversation, gather_duplicates, gather_rejected
from posttrain.data.report.funnel import funnel, overview
from posttrain.data.report.gather import Gathered, Measures, gather
from posttrain.data.report.settings import entry_settings, eval_sets
from posttrain.data.report.terms import forbidding, set_name
from posttrain.data.report.words import PII_KINDS, count, percent, plural, readable_language, step_name

PANELS = 4  # languages drawn a source
_OPEN = 6  # more sources than this, and their funnels begin folded


def describe_set(folder: Path, kind: str, part: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read the files of a set and return what `report.html.jinja` says of it.

    Args:
        folder: Holds the parquet files of the set.
        kind: `sft` or `preference`.
        part: The set's part of `summary.json`.
        settings: The data section of the recipe as plain values.
    """
    gathered = gather(folder / "train.parquet")
    rows, order = gathered.rows, list(dict.fromkeys(source["name"] for source in part["sources"]))
    against = eval_sets(settings)
    rejected = gather_rejected(folder / "rejected.parquet", against)
    page = {
        "key": kind,
        "name": set_name(kind),
        "pairs": kind == "preference",
        "rows": len(rows.source),
        "trained": int(rows.trained.sum()),
        "repeats": sum(source["train_repeats"] for source in part["sources"]),
        "tiles": _tiles(part, rows),
        "overview": _overview(part["sources"]),
        "open": len(part["sources"]) <= _OPEN,
        "funnels": [_funnel(source, settings) for source in part["sources"]],
        "shares": tables.shares(rows, order),
        "stacks": tables.stacks(rows, order),
        "length_table": tables.lengths(rows, order),
        "languages": tables.languages(rows, order),
        "turns": tables.turns(rows, order),
        "duplicates": _duplicates(folder, kind),
        "contaminated": [{**row, "text": _user_text(row["record"])} for row in rejected.contaminated],
        "contaminated_total": count(rejected.hits.total()),
        "hits": [(name, count(rejected.hits[name]), count(len(rejected.items[name]))) for name in against],
        "rejected": [_rejected_group(key, several, part) for key, several in rejected.examples.items()],
        "examples": [(name, gathered.examples[name]) for name, _ in tables.names_in(rows, order)],
        **_pictures(kind, rows, order),
        **_pii(gathered, order),
    }
    return {**page, "toc": _contents(page, bool(settings.get("pii")))}


def _contents(page: Mapping[str, Any], masking: bool) -> list[tuple[str, str]]:
    headings = {
        "overview": "Read to kept",
        "shares": "Shares",
        "lengths": "Lengths",
        "languages": "Languages",
        "turns": "Turns",
        "bias": "Margins, length bias",
        "duplicates": "Duplicates",
        "contamination": "Contamination",
        "pii": "Personal data",
        "rejected": "Rejected rows",
        "rows": "Random rows",
    }
    absent = {"bias": not page["pairs"], "pii": not (page["pii"] or masking)}
    return [(anchor, heading) for anchor, heading in headings.items() if not absent.get(anchor)]


def _tiles(part: Mapping[str, Any], rows: Measures) -> list[tuple[str, str, str]]:
    sources = part["sources"]
    made, taken = sum(source["rows"] for source in sources), sum(source["train"] for source in sources)
    refused = sum(sum(reasons.values()) for source in sources for reasons in source["rejected"].values())
    trained = int(rows.trained.sum())
    forbidden = forbidding(part)
    return [
        ("Sources", count(len(sources)), f"{count(sum(source['read'] for source in sources))} records read"),
        ("Rows to train on", count(part["train"]), f"{percent(taken, made)} of {plural(made, 'row')} made"),
        ("Held out", count(part["validation"]), "for validation"),
        ("Rejected", count(refused), "in all steps"),
        ("Trained text", _short(trained), "characters"),
        ("Not for commerce", count(forbidden), "rows, by their licence"),
    ]


def _short(number: int) -> str:
    """Write a large number briefly: `4.2M`."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            scale = 1000 if letter == "k" else size
            return f"{number / scale:.{0 if number >= 100 * scale else 1}f}{letter}"
    return count(number)


def _overview(sources: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    counts = [(source["name"], overview(source)) for source in sources]
    if len(counts) > 1:
        counts.append(("All", {key: sum(each[key] for _, each in counts) for key in counts[0][1]}))
    columns = ("read", "rows", "filtered", "contaminated", "duplicates", "split", "sampled_out", "validation", "train")
    return [
        {
            "name": name,
            "total": place == len(sources),
            "cells": [
                *(count(values[column]) for column in columns),
                percent(values["train"] + values["validation"], values["rows"]),
            ],
        }
        for place, (name, values) in enumerate(counts)
    ]


def _funnel(source: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    import yaml

    provenance = source["provenance"]
    revision = f" @ {provenance['revision'][:12]}" if provenance.get("revision") else ""
    options = entry_settings(settings, source["entry"])
    return {
        "name": source["name"],
        "entry": source["entry"],
        "origin": f"{provenance['path']}{revision}",
        "read": count(source["read"]),
        "kept": count(source["train"] + source["validation"]),
        "lines": funnel(source),
        "options": yaml.safe_dump(
            {"source": source["source"], "path": provenance["path"], **options}, sort_keys=False, allow_unicode=True
        ),
    }


def _pictures(kind: str, rows: Measures, order: Sequence[str]) -> dict[str, Any]:
    import numpy as np
    from markupsafe import Markup

    pairs = kind == "preference"
    panels, more, margins = [], 0, []
    for number, (name, places) in enumerate(tables.names_in(rows, order)):
        present = np.bincount(rows.language[places], minlength=len(rows.languages))
        ranked = [code for code in np.argsort(-present, kind="stable") if present[code]]
        more += len(ranked[PANELS:])
        for code in ranked[:PANELS]:
            several = places[rows.language[places] == code]
            language = readable_language(rows.languages[code])
            picture = figures.length_histogram(
                f"{kind}-length-{number}-{code}",
                f"Lengths of {name}, language {language}",
                rows.answer[several],
                rows.user[several],
                rows.rejected[several] if pairs else None,
            )
            panels.append(
                {
                    "name": name,
                    "language": language,
                    "rows": plural(len(several), "row"),
                    "median": count(float(np.median(rows.answer[several]))),
                    "picture": Markup(picture),
                }
            )
        stated = rows.margin[places][~np.isnan(rows.margin[places])]
        if pairs and len(stated):
            picture = figures.margin_histogram(f"{kind}-margin-{number}", f"Margins of {name}", stated)
            margins.append((name, Markup(picture)))
    made: dict[str, Any] = {"lengths": panels, "more_languages": more}
    if pairs:
        made.update(margins=margins, bias=_bias(rows), bias_table=tables.bias_table(rows, order))
    return made


def _bias(rows: Measures) -> dict[str, Any]:
    from markupsafe import Markup

    bias = tables.length_bias(rows.answer, rows.rejected)
    label = "How many times longer the chosen answer is than the rejected one"
    return {
        "longer": percent(bias["longer"], 1),
        "mean": count(abs(bias["mean"])),
        "direction": "longer" if bias["mean"] >= 0 else "shorter",
        "median": f"{bias['ratio']:.2f}",
        "words": _bias_in_words(bias["longer"] + bias["equal"] / 2),
        "picture": Markup(figures.ratio_histogram("preference-ratio", label, rows.answer, rows.rejected)),
    }


def _bias_in_words(longer: float) -> str:
    if 0.45 <= longer <= 0.55:
        return "Length says next to nothing about which answer was preferred."
    side = "longer" if longer > 0.5 else "shorter"
    return f"Always preferring the {side} answer would be right in {max(longer, 1 - longer):.1%} of the pairs."


def _duplicates(folder: Path, kind: str) -> dict[str, Any]:
    from markupsafe import Markup

    found = gather_duplicates(folder / "duplicates.parquet")
    pairs = sorted({(source, kept) for _, source, kept in found.counts})
    picture = ""
    if any(found.similarity):
        label = "Near-duplicates by estimated Jaccard similarity"
        picture = Markup(figures.similarity_histogram(f"{kind}-similarity", label, found.similarity))
    return {
        "rows": [
            {
                "source": source,
                "kept_source": kept,
                "exact": count(found.counts["exact", source, kept]),
                "near": count(found.counts["near", source, kept]),
                "semantic": count(found.counts["semantic", source, kept]),
            }
            for source, kept in pairs
        ],
        "semantic": any(step == "semantic" for step, _, _ in found.counts),
        "picture": picture,
        "examples": found.examples,
    }


def _user_text(record: str) -> str:
    """Return the user's turns of a rejected row, or the record as it is."""
    row, text = as_conversation(record)
    if row is None:
        return text
    turns = row.get("messages") or row["prompt"]
    return "\n\n".join(turn["content"] for turn in turns if turn["role"] == "user")


def _rejected_group(key: tuple[str, str], rows: list[dict[str, Any]], part: Mapping[str, Any]) -> dict[str, Any]:
    step, reason = key
    total = sum(source["rejected"].get(step, {}).get(reason, 0) for source in part["sources"])
    shown = []
    for row in rows:
        conversation, text = as_conversation(row["record"])
        shown.append({"source": row["source"], "detail": row["detail"], "row": conversation, "text": text})
    return {"step": step_name(step), "reason": reason, "count": plural(total, "row"), "rows": shown}


def _pii(gathered: Gathered, order: Sequence[str]) -> dict[str, Any]:
    kinds = sorted({kind for counts in gathered.pii.values() for kind in counts})
    kinds = [kind for kind in PII_KINDS if kind in kinds] + [kind for kind in kinds if kind not in PII_KINDS]
    return {
        "pii_kinds": [PII_KINDS.get(kind, kind) for kind in kinds],
        "pii": [
            (name, [count(gathered.pii_rows[name]), *(count(gathered.pii[name][kind]) for kind in kinds)])
            for name in order
            if name in gathered.pii
        ],
    }
