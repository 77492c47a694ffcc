"""What tests of the evaluation share: tiny checkpoints, and an evaluation of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from posttrain.evaluate.checkpoints import Checkpoint
from posttrain.evaluate.run import Plan
from posttrain.recipe.schema_evaluate import EvalTask, Evaluation
from tests.helpers import make_tokenizer, save_checkpoint

RESAMPLES = 100


def make_models(folder: Path) -> tuple[Path, Path]:
    """Save the tiny model, and another with the same tokenizer and other weights."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = make_tokenizer()
    one, other = save_checkpoint(tokenizer, folder / "one"), save_checkpoint(tokenizer, folder / "other")
    model = AutoModelForCausalLM.from_pretrained(other)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    model.save_pretrained(other)
    return one, other


def checkpoint(path: Path, name: str = "base", **others: Any) -> Checkpoint:
    """Return a folder as a model to measure."""
    options: dict[str, Any] = {"kind": "base", "source": path.name, **others}
    return Checkpoint(name=name, path=str(path), **options)


def plan_of(folder: Path, tasks: Sequence[EvalTask], checkpoints: Sequence[Checkpoint], **settings: Any) -> Plan:
    """Return an evaluation whose results go to `folder`."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    return Plan(
        settings=Evaluation(**{"tasks": list(tasks), "batch_size": 4, "resamples": RESAMPLES, **settings}),
        checkpoints=checkpoints,
        folder=folder,
        work=folder / ".work",
        verdicts=folder / "said",
        seed=7,
        device=torch.device("cpu"),
        judge=None,
        console=Console(quiet=True),
        read=lambda record: None,
        reached=lambda place: None,
    )
