"""Pictures of a training run, drawn from the trainer's log history."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

History = Sequence[dict[str, Any]]


def series(history: History, key: str) -> tuple[list[int], list[float]]:
    """Return the steps at which `key` was logged, and its values."""
    points = [(int(entry["step"]), float(entry[key])) for entry in history if key in entry]
    return [step for step, _ in points], [value for _, value in points]


def _draw(path: Path, title: str, ylabel: str, lines: list[tuple[str, str, list[int], list[float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    for label, style, steps, values in lines:
        if steps:
            axes.plot(steps, values, style, label=label, linewidth=1.6, markersize=5)
    axes.set_title(title)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    # matplotlib writes its version into a PNG unless told not to; the picture should depend on the run alone
    figure.savefig(path, metadata={"Software": None})


def draw_loss(history: History, path: Path, title: str) -> None:
    """Draw the training loss and the held-out loss, in nats, over optimiser steps."""
    train, held_out = series(history, "loss"), series(history, "eval_loss")
    _draw(path, title, "loss (nats)", [("training", "-", *train), ("held out", "o-", *held_out)])


def draw_margin(history: History, path: Path, title: str) -> None:
    """Draw the mean reward margin (chosen minus rejected, in nats) in training and on the held-out pairs."""
    train, held_out = series(history, "rewards/margins"), series(history, "eval_rewards/margins")
    _draw(path, title, "reward margin (nats)", [("training", "-", *train), ("held out", "o-", *held_out)])
