"""Perplexity is the model's own, whatever the rows come with, and a prompt is gone on from."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.release.quantize import worker
from posttrain.release.quantize.measure import Job, load, mean_loss, measure, perplexity

ROWS = [[5, 9, 30, 31, 32, 7, 8], [3, 3, 4, 90, 17, 22, 140]]


@pytest.fixture
def job(checkpoint: Path) -> Job:
    return Job(
        folder=str(checkpoint),
        backend=None,
        prompt=[5, 9, 30],
        new_tokens=4,
        rows=ROWS,
        device="cpu",
        dtype="float32",
        trust_remote_code=False,
    )


def whole_loss(model: Any, row: list[int]) -> float:
    """Return the loss as transformers computes it."""
    ids = torch.tensor([row])
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss)


def test_the_loss_is_that_of_transformers_over_all_tokens(job: Job) -> None:
    model = load(job)
    expected = [whole_loss(model, row) for row in ROWS]
    loss, tokens = mean_loss(model, ROWS)
    assert tokens == 12
    assert loss == pytest.approx(sum(expected) / 2, abs=1e-6)
    assert mean_loss(model, ROWS[::-1])[0] == loss
    shorter, few = mean_loss(model, [ROWS[0], ROWS[1][:3]])  # a mean over tokens, not over rows
    short = whole_loss(model, ROWS[1][:3])
    assert few == 8
    assert shorter == pytest.approx((6 * expected[0] + 2 * short) / 8, abs=1e-6)


def test_perplexity_of_equal_chances_is_their_number() -> None:
    assert perplexity(math.log(400)) == pytest.approx(400)
    assert perplexity(1e6) == math.inf


def test_it_generates_and_measures_what_is_asked(job: Job) -> None:
    both = measure(job)
    assert both.keys() == {"new_tokens", "loss", "tokens"}
    assert 1 <= both["new_tokens"] <= 4
    assert measure(replace(job, rows=[])).keys() == {"new_tokens"}
    assert measure(replace(job, prompt=[])) == {"loss": both["loss"], "tokens": 12}


def test_logits_that_are_no_numbers_are_a_failure(job: Job, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posttrain.release.quantize import measure as module

    model = load(job)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    monkeypatch.setattr(module, "load", lambda job: model)
    with pytest.raises(RuntimeError, match="not all finite"):
        measure(job)


def test_the_worker_runs_a_job_from_a_file(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    written, result = tmp_path / "job.json", tmp_path / "result.json"
    monkeypatch.setattr(worker, "end_with", lambda parent: None)
    written.write_text(json.dumps({"kind": "measure", "threads": None, "job": asdict(job)}))
    assert worker.main([str(written), str(result)]) == 0
    assert json.loads(result.read_text()) == measure(job)
