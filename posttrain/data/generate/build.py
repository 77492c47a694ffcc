"""All entries of `generate`, one after another: their engines, their rollouts, and a folder of rows for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.data.generate.engines import Models, open_client, rows_at_once
from posttrain.data.generate.inputs import input_problems, input_rows, input_total
from posttrain.data.generate.parts import Refusals, RunSummary, finished
from posttrain.data.generate.progress import following
from posttrain.data.generate.run import run_rows
from posttrain.data.generate.stats import Stats
from posttrain.data.generate.stop import Stop, stopping_on_signals
from posttrain.errors import UserError
from posttrain.recipe import schema_generate as schema

if TYPE_CHECKING:
    from posttrain.data.generate.rows import Rollout
    from posttrain.data.generate.store import Store

STORE = "answers.sqlite"
COUNTED = ("requests", "answers", "from_store", "prompt_tokens", "completion_tokens", "seconds")


@dataclass(frozen=True)
class Made:
    """What became of an entry: its rows, and what it asked for in this run (`COUNTED`, `retries` and `failures`)."""

    summary: RunSummary
    asked: dict[str, Any]


def build(entries: Sequence[schema.Rollout], models: Models, seed: int, out: Path, answers: Path) -> dict[str, Made]:
    """Build the rows of every entry in `out/<name>/`; entries and parts that are whole are left as they are.

    Args:
        entries: The options of the entries, in the order of the recipe.
        models: What is asked.
        seed: The recipe's seed, from which those of the answers derive.
        out: Where the rows go.
        answers: The folder of the answers that were had before, of this recipe or an earlier form of it.

    Returns:
        What became of each entry, by name.

    Raises:
        Interrupted: A signal stopped it; what was under way has been saved.
        UserError: Something about the entries, the models or their servers that the user can correct.
    """
    if problems := [problem for entry in entries for problem in entry_problems(entry)]:
        raise UserError(problems)
    from posttrain.data.generate.store import Store

    out.mkdir(parents=True, exist_ok=True)
    with stopping_on_signals() as stop, Store(answers / STORE) as store:
        return asyncio.run(_build(entries, models, seed, out, store, stop))


def entry_problems(entry: schema.Rollout) -> list[str]:
    """Return what is wrong with an entry that its types cannot show, each with the key at fault; reads no rows."""
    from posttrain.data.generate.rollouts.magpie import problems_of_magpie
    from posttrain.data.generate.rollouts.rate import problems_of_rate
    from posttrain.data.generate.rollouts.respond import problems_of_respond
    from posttrain.data.generate.rollouts.translate import problems_of_translate

    own: list[str] = []
    if isinstance(entry, schema.MagpieRollout):
        own = problems_of_magpie(entry)
    elif isinstance(entry, schema.Rate):
        own = problems_of_rate(entry)
    elif isinstance(entry, schema.Respond):
        own = problems_of_respond(entry)
    elif isinstance(entry, schema.Translate):
        own = problems_of_translate(entry)
    return [*input_problems(entry), *(f"generate.{entry.name}.{problem}" for problem in own)]


async def _build(
    entries: Sequence[schema.Rollout], models: Models, seed: int, out: Path, store: Store, stop: Stop
) -> dict[str, Made]:
    done = {entry.name: summary for entry in entries if (summary := finished(out / entry.name)) is not None}
    left = [entry for entry in entries if entry.name not in done]
    async with AsyncExitStack() as stack:
        client = await open_client(left, models, seed, store, stack, stop) if left else None
        stats = Stats() if client is None else client.stats
        made: dict[str, Made] = {}
        for entry in entries:
            folder, earlier = out / entry.name, {name: out / name for name in made}
            before = stats.snapshot()
            summary = done.get(entry.name)
            if summary is None:
                assert client is not None, "it is there where an entry is left"
                folder.mkdir(parents=True, exist_ok=True)
                with Refusals(folder) as refused, following(entry.name, stats.snapshot) as progress:
                    summary = await run_rows(
                        input_rows(entry, earlier, refused=refused),
                        rollout_of(entry, models, seed),
                        client,
                        folder,
                        total=input_total(entry, earlier),
                        concurrency=rows_at_once(models),
                        progress=progress,
                        stop=stop,
                        refused=refused,
                    )
            made[entry.name] = Made(summary, _since(before, stats.snapshot()))
        return made


def _since(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was counted between two snapshots of `Stats`; rates and the like are left out."""
    counted = {name: now[name] - before[name] for name in COUNTED}
    for name in ("retries", "failures"):
        found = {kind: count - before[name].get(kind, 0) for kind, count in now[name].items()}
        counted[name] = {kind: count for kind, count in found.items() if count}
    return counted


def rollout_of(entry: schema.Rollout, models: Models, seed: int) -> Rollout:
    """Return the rollout of an entry."""
    if isinstance(entry, schema.Respond):
        from posttrain.data.generate.rollouts.respond import respond

        return respond(entry, seed)
    if isinstance(entry, schema.Rate):
        from posttrain.data.generate.rollouts.rate import rate

        return rate(entry, seed)
    if isinstance(entry, schema.Translate):
        from posttrain.data.generate.rollouts.translate import translate

        return translate(entry, seed)
    assert isinstance(entry, schema.MagpieRollout)
    from posttrain.data.generate.rollouts.magpie import magpie

    assert models.teacher is not None
    return magpie(entry, seed, _prefixes(models.teacher))


def _prefixes(teacher: schema.Teacher) -> Callable[[str | None], Any]:
    from posttrain.data.generate.models import load_tokenizer
    from posttrain.data.generate.prefix import Prefix

    tokenizer = load_tokenizer(teacher)
    return cache(lambda system: Prefix.of(tokenizer, system))


def describe(name: str, summary: RunSummary) -> str:
    """Say in a line what an entry came to."""
    text = f"{name}: {summary.rows:,} rows, {summary.written:,} written, {summary.failed:,} failed"
    for what, reasons in (("failed", summary.reasons), ("not usable", summary.refused)):
        for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
            text += f"; {count:,} {what}: {reason}"
    return text


def prompt_files(entries: Sequence[schema.Rollout]) -> Mapping[str, str]:
    """Return the text of each of the package's prompts that the entries use, by name: it determines the rows."""
    from posttrain.data.generate import categories
    from posttrain.data.generate.prompts import prompt_texts
    from posttrain.data.generate.rollouts import magpie, rate, respond, translate

    texts: dict[str, str] = {}
    for entry in entries:
        if isinstance(entry, schema.Respond):
            texts |= prompt_texts(respond.prompt_names(entry))
        elif isinstance(entry, schema.Rate):
            texts |= prompt_texts(rate.prompt_names(entry))
        elif isinstance(entry, schema.Translate):
            texts |= prompt_texts(translate.prompt_names(entry))
        elif isinstance(entry, schema.MagpieRollout):
            texts |= {**categories.texts(entry), **prompt_texts(magpie.prompt_names(entry))}
    return dict(sorted(texts.items()))
