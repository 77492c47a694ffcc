"""Tiny checkpoints to quantise, and the work of a worker process done in this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain.recipe.schema import Model
from posttrain.recipe.schema_quantize import HeldOut, Quantize, TextSet, Variant
from posttrain.release.quantize.prepare import Task
from tests.helpers import make_tokenizer, save_checkpoint

MakeTask = Callable[..., Task]
SAMPLES = "builtin:samples/messages.jsonl"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with its tokenizer and template."""
    return save_checkpoint(make_tokenizer(), tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def task(checkpoint: Path, tmp_path: Path) -> MakeTask:
    """Return a task of small sizes, which says nothing."""

    def make(*variants: Variant, source: Path = checkpoint, at: str = "out", **changes: Any) -> Task:
        settings = {
            "variants": list(variants) or [Variant(bits=4, group_size=64)],
            "calibration": TextSet(path=SAMPLES, samples=4, length=64),
            "heldout": HeldOut(samples=2, length=64),
            "device": "cpu",
            "threads": 1,
            **changes,
        }
        folder = tmp_path / at
        folder.mkdir(exist_ok=True)
        return Task(
            settings=Quantize(**settings),
            model=Model(base=str(source), dtype="float32"),
            of="base",
            made=False,
            source=source,
            tokenizer=source,
            rows=None,
            seed=7,
            folder=folder,
            work=folder / ".work",
            say=lambda text: None,
        )

    return make
