"""Builds the SFT and preference sets of a recipe.

Each source is read in parts; over several processes each part is parsed, converted and filtered row by row
(`posttrain.data.part`). Then duplicates, samples and held-out rows are decided on the keys of all rows
(`posttrain.data.choose`), and the files are written in seeded order (`posttrain.data.assemble`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from posttrain.data.assemble import assemble
from posttrain.data.choose import Pool, choose, pool
from posttrain.data.parts import EntryParts, build_parts
from posttrain.data.progress import Advance, following
from posttrain.data.read import check_source_exists
from posttrain.data.sources import SOURCES, Source, entry_options
from posttrain.data.summary import SetSummary, Summary, summarise
from posttrain.errors import UserError
from posttrain.recipe.schema import Data

SETS = ("sft", "preference")


def build(
    data: Data,
    seed: int,
    out: Path,
    *,
    title: str = "data",
    work: Path | None = None,
    tokenizer_file: Path | None = None,
    report: bool = True,
    progress: bool | None = None,
) -> Summary:
    """Build the sets that a recipe has.

    Writes `out/{sft,preference}/{train,validation,rejected}.parquet`, `duplicates.parquet` where there are some,
    `out/summary.json`, `out/report.html` and `out/README.md`. Equal input files, entries and seed give equal bytes,
    for any number of processes.

    Args:
        data: The recipe's section; entries are options of their sources, or mappings that passed the recipe's checks.
        seed: Decides sampling, the held-out rows and the order.
        out: The folder to write to; made if it is not there.
        title: What the report and the card are called.
        work: A folder for finished parts, from which a build that was cut off goes on. By default one that is removed
            at the end, and with all else if the build fails.
        tokenizer_file: A `tokenizer.json`, which `data.filters.length.max_tokens` needs.
        report: Whether to write `report.html` and `README.md`.
        progress: Whether to draw bars; by default if standard error is a terminal.

    Raises:
        UserError: Sources that are missing, damaged, of no known shape, or give no row at all, all of them together.
    """
    entries = {name: [_licensed(entry_options(entry)) for entry in getattr(data, name)] for name in SETS}
    entries = {name: options for name, options in entries.items() if options}
    if not entries:
        raise UserError("data: there is nothing to build; give data.sft or data.preference at least one entry")
    if problems := [*_problems(entries), *_semantic_problems(data, entries)]:
        raise UserError(problems)
    if (out / "summary.json").exists():
        if work is None:
            raise UserError(f"{out}: holds a build already; choose another folder")
        # The summary is put in place last: a build was cut off after it was whole.
        return Summary.from_json(json.loads((out / "summary.json").read_text(encoding="utf-8")))
    new = not out.exists()
    own = work or out / ".unfinished"
    if work is None:
        shutil.rmtree(own, ignore_errors=True)
    try:
        with following(progress) as advance:
            summary = _build(entries, data, seed, own, tokenizer_file, advance)
            if report:
                from posttrain.data.card import write_card
                from posttrain.data.report import write_report

                advance("report", 0.0)
                write_report(own / "result", title)
                write_card(own / "result", title)
                advance("report", 1.0)
        for path in sorted((own / "result").iterdir()):
            if (out / path.name).is_dir():  # left by a build that was killed just here
                shutil.rmtree(out / path.name)
            path.replace(out / path.name)
        shutil.rmtree(own)
    except BaseException:
        if work is None:
            shutil.rmtree(out if new else own, ignore_errors=True)
        raise
    return summary


def _licensed(options: Source) -> Source:
    return SOURCES[options.source].licensed(options)


def _problems(entries: dict[str, list[Source]]) -> list[str]:
    return [
        f"data.{name}.{number}.{problem}"
        for name, several in entries.items()
        for number, options in enumerate(several)
        for problem in (
            *SOURCES[options.source].check(options),
            *(f"path: {problem}" for problem in check_source_exists(options)),
        )
    ]


def _semantic_problems(data: Data, entries: dict[str, list[Source]]) -> list[str]:
    """Find now what would otherwise stop the build after the last part."""
    semantic = data.duplicates.semantic
    if semantic is None:
        return []
    from posttrain.data.embeddings import check_model

    names = {options.label for kind in semantic.sets for options in entries.get(kind, [])}
    unknown = [
        f"data.duplicates.semantic.sources: there is no entry {name!r} under {several}; give {', '.join(sorted(names))}"
        for several in [" or ".join(f"data.{kind}" for kind in semantic.sets)]
        for name in semantic.sources
        if name not in names
    ]
    return [*unknown, *check_model(semantic)]


def _build(
    entries: dict[str, list[Source]],
    data: Data,
    seed: int,
    work: Path,
    tokenizer_file: Path | None,
    advance: Advance,
) -> Summary:
    result = work / "result"
    shutil.rmtree(result, ignore_errors=True)
    result.mkdir(parents=True)
    parts = build_parts(entries, data, work, tokenizer_file, advance)
    pools = [_pool(name, options, parts) for name, options in entries.items()]
    advance("duplicates, samples, held-out rows", 0.0)
    choose(pools, data, seed, work, advance)
    advance("duplicates, samples, held-out rows", 1.0)
    sets: dict[str, SetSummary] = {}
    for rows in pools:
        written = assemble(rows, result / rows.kind, work, seed, advance)
        sets[rows.kind] = summarise(rows, [entry for entry in parts if entry.kind == rows.kind], written)
    if problems := [problem for name, part in sets.items() for problem in _no_training_rows(name, part)]:
        raise UserError(problems)
    summary = Summary(seed, settings(data, entries), sets)
    text = json.dumps(summary.to_json(), indent=2, ensure_ascii=False, sort_keys=True)
    (result / "summary.json").write_text(text + "\n", encoding="utf-8")
    return summary


def _pool(name: str, options: Sequence[Source], found: Sequence[EntryParts]) -> Pool:
    of_set = [entry for entry in found if entry.kind == name]
    return pool(name, options, [(entry.number, folder, counts) for entry in of_set for folder, counts in entry.parts])


def settings(data: Data, entries: dict[str, list[Source]]) -> dict[str, Any]:
    """Return the section as plain values, without what does not determine the rows and where files lie."""
    plain = asdict(replace(data, sft=entries.get("sft", []), preference=entries.get("preference", [])))
    del plain["num_proc"]
    named = [*plain["sft"], *plain["preference"], *((plain["decontaminate"] or {}).get("against") or [])]
    for entry in named:
        if Path(entry["path"]).is_absolute():
            entry["path"] = Path(entry["path"]).name
    semantic = plain["duplicates"]["semantic"]
    if semantic and Path(semantic["model"]).is_absolute():
        semantic["model"] = Path(semantic["model"]).name
    return plain


def _no_training_rows(name: str, part: SetSummary) -> list[str]:
    if part.train:
        return []
    held = part.validation
    return [f"data.{name}: no row is left to train on, {held} are held out; take more rows, or hold out fewer"]
