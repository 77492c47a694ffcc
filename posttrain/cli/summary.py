"""What a finished run says: where things are, and whether the model learnt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.stages.manifest import Manifest

if TYPE_CHECKING:
    from rich.console import Console

    from posttrain.stages.runner import Done

_PICTURES = ("loss.png", "reward_margin.png", "results.png")


def _change(before: float, after: float) -> str:
    return f"{before:.3f} -> {after:.3f} ({after / before - 1:+.0%})"


def figures(stage: str, metrics: dict[str, Any]) -> str:
    """Put the outcome of a stage on one line: held-out figures before and after, and the speed."""
    parts = []
    if "after/loss" in metrics:
        name = "held-out DPO loss" if stage == "dpo" else "held-out loss"
        before = metrics.get("before/loss")
        after = metrics["after/loss"]
        parts.append(f"{name} {_change(before, after) if before is not None else f'{after:.3f}'}")
    if "after/rewards/accuracies" in metrics:
        parts.append(f"preference accuracy {metrics['after/rewards/accuracies']:.3f}")
        parts.append(f"reward margin {metrics['after/rewards/margins']:.3f}")
    if "merge_logit_difference" in metrics:
        parts.append(
            f"merging changed the logits by at most {metrics['merge_logit_difference']:.1e}, "
            f"saving by {metrics['saved_logit_difference']:.1e}"
        )
    if stage == "eval":
        measured = [name.split("/")[:2] for name in metrics]
        tasks, models = (len({pair[place] for pair in measured}) for place in (1, 0))
        parts.append(f"models measured: {models}, tasks: {tasks}; table.md has all figures")
    if stage == "release":
        stops = [value for key, value in metrics.items() if key.endswith("/stops")]
        signed = "signed" if metrics["signed"] else "not signed"
        parts.append(f"folders: {metrics['folders']}, {signed}; {sum(stops)} of them stop by themselves")
    if "tokens_per_second" in metrics:
        parts.append(f"{metrics['tokens_per_second']:,.0f} tokens/s")
        parts.append(f"{metrics['trained_tokens_per_second']:,.0f} trained tokens/s")
    if stage == "sft" and "packing_efficiency" in metrics:
        parts.append(f"packing efficiency {metrics['packing_efficiency']:.0%}")
    if stage.startswith("tokenize-"):
        rows, blocks, tokens, trained = (metrics[key] for key in ("rows", "blocks", "tokens", "trained_tokens"))
        packed = f" in {blocks:,} blocks" if blocks != rows else ""
        parts.append(f"{rows:,} rows{packed}, {tokens:,} tokens, {trained:,} trained")
    if "pairs" in metrics:
        pairs, held_out = metrics["pairs"], metrics["held_out_pairs"]
        parts.append(f"log-probabilities of {pairs:,} pairs to train and {held_out:,} held out")
    for rows in ("sft", "preference"):
        if f"{rows}/train" in metrics:
            train, held_out, rejected = (metrics[f"{rows}/{key}"] for key in ("train", "validation", "rejected"))
            parts.append(f"{rows}: {train:,} rows to train, {held_out:,} held out, {rejected:,} rejected")
    return ", ".join(parts)


def summarise(done: Sequence[Done], console: Console) -> None:
    """Print a line a stage, and the pictures to look at."""
    console.print()
    pictures: list[Path] = []
    width = max(len(entry.stage) for entry in done)
    for entry in done:
        manifest = Manifest.read(entry.folder)
        seconds = manifest.times.get("seconds")
        what = "reused" if entry.action == "reuse" else f"{seconds:,.0f} s" if seconds is not None else entry.action
        line = f"{entry.stage:<{width}} {os.fspath(entry.folder)}  ({what})"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
        if told := figures(entry.stage, manifest.metrics):
            console.print(f"{'':<{width}} {told}", highlight=False, markup=False, soft_wrap=True)
        pictures += [entry.folder / name for name in _PICTURES if (entry.folder / name).is_file()]
    if pictures:
        console.print("curves", ", ".join(map(os.fspath, pictures)), highlight=False, markup=False, soft_wrap=True)
