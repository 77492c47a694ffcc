"""Training on a mixture: killed and resumed gives the same weights, and two processes train what one trains."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from safetensors.torch import load_file
from torch.utils.data import BatchSampler, SequentialSampler

from posttrain.cli import main
from posttrain.stages import Manifest
from posttrain.train.checkpoints import COMPLETE
from posttrain.train.token_blocks import Blocks, load_blocks
from tests.helpers import start

STEPS = 40
RECIPE = """\
name: mixture
model:
  new: {{vocab_size: 400, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4,
        num_key_value_heads: 2, max_position_embeddings: 64}}
  dtype: float32
  chat_template: plain
cpt:
  text:
    - {{path: "builtin:text/en.txt", share: 0.5}}
    - {{path: "builtin:text/fi.txt", share: 0.3}}
    - {{path: "{short}", share: 0.2}}
  tokens: {tokens}
  max_length: 64
  global_batch_size: 6
  learning_rate: 1.0e-3
  lr_scheduler_type: cosine_with_min_lr
  lr_scheduler_kwargs: {{min_lr: 1.0e-8}}
  warmup_ratio: 0.05
  validation_fraction: 0.01
  logging_steps: 1
  save_steps: 4
launch: {{cpu: true}}
data: {{num_proc: 1}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of three texts, one so short that it is begun again several times."""
    folder = tmp_path_factory.mktemp("recipe")
    short = folder / "short.txt"
    short.write_text("\n\n".join(f"Document {number}: the lake is calm." for number in range(40)))
    path = folder / "mixture.yaml"
    path.write_text(RECIPE.format(short=short, tokens=STEPS * 6 * 64))
    return path


@pytest.fixture(scope="module")
def read() -> list[int]:
    """The numbers of the blocks that the trainer of `whole` was given, in their order."""
    return []


@pytest.fixture(scope="module")
def whole(recipe: Path, read: list[int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole") / "output"
    given = Blocks.__call__

    def noting(self: Blocks, batch: dict[str, list[int]]) -> dict[str, Any]:
        if len(self._files) == 3:  # not the held-out ones
            read.extend(batch["input_ids"])
        return given(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blocks, "__call__", noting)
        assert main(["run", str(recipe), f"output_dir={output}"]) == 0
    return output


def test_the_trainer_gets_the_blocks_in_their_order(whole: Path, read: list[int]) -> None:
    order = load_blocks(whole / "tokens-cpt")[0].with_format(None)["input_ids"]
    assert read[-len(order) :] == list(order)
    assert len(read) - len(order) <= 2  # the trainer looks at the first one when it is made


def test_the_manifest_says_what_was_trained_on(whole: Path) -> None:
    metrics = Manifest.read(whole / "base").metrics
    assert metrics["steps"] == STEPS
    assert metrics["rows"] == STEPS * 6
    for index, share in enumerate((0.5, 0.3, 0.2)):
        assert metrics[f"{index}/share"] == share
        assert abs(metrics[f"{index}/realised_share"] - share) < 0.005
    assert metrics["2/epochs"] > 1 > metrics["0/epochs"] > 0
    assert metrics["after/loss"] < metrics["before/loss"]
    schedule = [
        entry["learning_rate"] for entry in json.loads((whole / "base/history.json").read_text()) if "loss" in entry
    ]
    assert max(schedule) == pytest.approx(1e-3)
    assert schedule[-1] < 1e-5


def test_killed_and_resumed_is_as_if_it_had_not_stopped(
    recipe: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    arguments = ["run", str(recipe), f"output_dir={output}"]
    running = start(arguments, tmp_path)
    deadline = time.monotonic() + 120
    while not list(output.glob(f".building/base-*/.work/checkpoint-*/{COMPLETE}")):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    saved = max(int(path.name.split("-")[1]) for path in output.glob(".building/base-*/.work/checkpoint-*"))
    assert 0 < saved < STEPS
    assert main(arguments) == 0
    assert "cpt: continuing" in capsys.readouterr().out
    assert Manifest.read(output / "tokens-cpt").digest == Manifest.read(whole / "tokens-cpt").digest
    alone, resumed = (load_file(each / "base/model.safetensors") for each in (whole, output))
    assert all(torch.equal(weight, resumed[name]) for name, weight in alone.items())


@pytest.mark.slow
def test_two_processes_train_what_one_trains(recipe: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert main(["run", str(recipe), f"output_dir={output}", "launch.num_processes=2"]) == 0
    one, two = (json.loads((each / "base/history.json").read_text()) for each in (whole, output))
    for before, after in zip(one, two, strict=True):
        if "loss" in before:
            assert after["loss"] == pytest.approx(before["loss"], rel=1e-5, abs=1e-6)
    alone, together = (load_file(each / "base/model.safetensors") for each in (whole, output))
    for name, weight in alone.items():
        assert torch.allclose(weight, together[name], rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_step_sees_the_same_blocks_in_any_number_of_processes(processes: int, whole: Path) -> None:
    """Each process gets every n-th block, so a step's blocks are the next `global_batch_size` of the order."""
    rows, _, _ = load_blocks(whole / "tokens-cpt")
    batches = BatchSampler(SequentialSampler(rows), 1, drop_last=False)
    shards = [list(BatchSamplerShard(batches, processes, rank)) for rank in range(processes)]
    accumulated = 6 // processes
    for step in range(STEPS):
        seen = [place for shard in shards for [place] in shard[step * accumulated : (step + 1) * accumulated]]
        assert sorted(seen) == list(range(step * 6, step * 6 + 6))
