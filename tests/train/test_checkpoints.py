"""What there is to go on from: whole, of the same recipe, never lost to a bad one; and what comes of going on."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.errors import Interrupted, UserError
from posttrain.recipe.schema import Recipe
from posttrain.stopping import ending_at_once
from posttrain.train import checkpoints
from tests.helpers import snapshot
from tests.train.test_stages import DPO, LORA, SFT, StopAt, assert_equal, recipe_for, run_stage, write_rows

RECORD = {"parts": {}, "world_size": 1, "sharding": "none"}
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data"))


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have every trainer that is made from now on get SIGTERM at a step; no step: none."""
    from posttrain.train import trl

    original = trl.base.BuildTrainer.__init__

    def at(step: int) -> None:
        def with_signal(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            self.add_callback(StopAt(step, signal.SIGTERM))

        monkeypatch.setattr(trl.base.BuildTrainer, "__init__", with_signal)

    return at


@pytest.fixture(scope="module")
def whole(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What SFT gives uninterrupted."""
    folder = tmp_path_factory.mktemp("whole") / "sft"
    run_stage("sft", recipe_for(checkpoint, sft=SFT), folder, {"data": data})
    return folder


@pytest.fixture
def interrupted(checkpoint: Path, data: Path, tmp_path: Path, cut_off: Callable[[int], None]) -> Path:
    """SFT cut off after step 4 of 6, with the checkpoints of steps 3 and 4."""
    folder = tmp_path / "cut"
    cut_off(3)
    with pytest.raises(Interrupted):
        run_stage("sft", recipe_for(checkpoint, sft=SFT), folder, {"data": data})
    cut_off(-1)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": LORA},
        {"lora": replace(LORA, dropout=0.3)},
        {"lora": LORA, "quantization": "nf4"},
        {"packing": "bfd", "max_length": 256, "global_batch_size": 1, "per_device_train_batch_size": 1},
    ],
    ids=["lora", "dropout", "qlora", "packed"],
)
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_interrupted_mid_epoch_equals_uninterrupted(
    checkpoint: Path, data: Path, tmp_path: Path, cut_off: Callable[[int], None], stage: str, changes: dict[str, Any]
) -> None:
    if stage == "dpo" and "packing" in changes:
        changes = {"loss_type": ["ipo"], "save_steps": 100}  # saved by the signal alone
    inputs = {"data": data, "sft": checkpoint}
    settings = {"sft": replace(SFT, **changes)} if stage == "sft" else {"dpo": replace(DPO, **changes)}
    recipe: Recipe = recipe_for(checkpoint, **settings)
    run_stage(stage, recipe, tmp_path / "whole", inputs)
    cut_off(3)
    with pytest.raises(Interrupted, match="step 4 of"):
        run_stage(stage, recipe, tmp_path / "cut", inputs)
    cut_off(-1)
    run_stage(stage, recipe, tmp_path / "cut", inputs, resume=True)
    assert_equal(tmp_path / "whole", tmp_path / "cut")


def test_a_signal_in_the_evaluation_before_the_first_step_ends_it_at_once(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    evaluate = Trainer._evaluate

    def with_signal(self: Any, *args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "_evaluate", with_signal)
    with pytest.raises(Interrupted, match=r"^before a step; "), ending_at_once(lambda: "before a step"):
        run_stage("sft", recipe_for(checkpoint, sft=SFT), tmp_path, {"data": data})
    assert not list((tmp_path / ".work").glob("checkpoint-*"))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state.pth"])
def test_a_truncated_checkpoint_is_said_and_the_one_before_it_taken(
    checkpoint: Path, data: Path, interrupted: Path, whole: Path, name: str
) -> None:
    broken = interrupted / ".work/checkpoint-4" / name
    os.truncate(broken, broken.stat().st_size // 2)
    again = run_stage("sft", recipe_for(checkpoint, sft=SFT), interrupted, {"data": data}, resume=True)
    said = again.console.file.getvalue()  # type: ignore[attr-defined]
    assert f"checkpoint-4 is damaged ({name} has" in said
    assert "step 4/6" in said  # again, from checkpoint-3
    assert "step 3/6" not in said
    assert_equal(whole, interrupted)


def test_a_checkpoint_of_another_recipe_is_refused(checkpoint: Path, data: Path, interrupted: Path) -> None:
    mark = interrupted / ".work/checkpoint-4/complete"
    content = json.loads(mark.read_text())
    mark.write_text(json.dumps(content | {"parts": {"sft.learning_rate": "0.1"}}))
    before = snapshot(interrupted)
    with pytest.raises(UserError, match=r"another recipe \(sft.learning_rate: was 0.1, is not set\); remove"):
        run_stage("sft", recipe_for(checkpoint, sft=SFT), interrupted, {"data": data}, resume=True)
    assert snapshot(interrupted) == before


def test_a_checkpoint_that_was_sharded_otherwise_is_refused(tmp_path: Path) -> None:
    put(tmp_path, 2, RECORD | {"sharding": "fsdp"})
    with pytest.raises(UserError, match="'fsdp', and this run has 'none'; launch it as before"):
        checkpoints.last_checkpoint(tmp_path, RECORD, print)


def test_another_number_of_processes_is_said(tmp_path: Path) -> None:
    put(tmp_path, 2, RECORD | {"world_size": 4})
    lines: list[str] = []
    assert checkpoints.last_checkpoint(tmp_path, RECORD, lines.append) is not None
    assert "saved by 4 processes and 1 go on" in lines[0]


@pytest.mark.parametrize("write", [1, 2, 3, 4], ids=["optimizer", "schedule", "rng", "mark"])
def test_a_full_disk_leaves_the_last_good_checkpoint(
    checkpoint: Path, data: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    """The n-th file of the second checkpoint does not fit; the first is in place, and the next run takes it."""
    recipe = recipe_for(checkpoint, sft=replace(SFT, save_steps=2, save_total_limit=1))
    folder = tmp_path / "full"
    done = 0

    def refuse() -> bool:
        nonlocal done
        if (folder / ".work/checkpoint-2").exists():
            done += 1
            if done == write:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return True

    save, publish = torch.save, checkpoints.publish
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *args, **kwargs: (refuse(), save(*args, **kwargs)))
        patch.setattr(checkpoints, "publish", lambda *args: (refuse(), publish(*args)))
        message = (
            r"checkpoint-4 could not be saved: No space left on device; [\d,]+ MB are free for .*; checkpoint-2 is"
        )
        with pytest.raises(UserError, match=message):
            run_stage("sft", recipe, folder, {"data": data})
    assert done == write
    assert [path.name for path in (folder / ".work").glob("*")] == ["checkpoint-2"]
    assert checkpoints.damage(folder / ".work/checkpoint-2") is None
    again = run_stage("sft", recipe, folder, {"data": data}, resume=True)
    assert "step 3/6" in again.console.file.getvalue()  # type: ignore[attr-defined]
    assert "step 2/6" not in again.console.file.getvalue()  # type: ignore[attr-defined]
    assert_equal(whole, folder)


def test_other_errors_are_not_taken_for_a_full_disk() -> None:
    assert not checkpoints.disk_refused(RuntimeError("CUDA out of memory"))
    assert not checkpoints.disk_refused(FileNotFoundError(errno.ENOENT, "no such file"))
    assert checkpoints.disk_refused(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"))
    assert checkpoints.disk_refused(OSError(errno.EDQUOT, "Disk quota exceeded"))


def put(folder: Path, step: int, record: Any = RECORD, limit: int | None = None) -> Path:
    """Publish a checkpoint of a few bytes."""
    written = folder / checkpoints.SAVING / f"checkpoint-{step}"
    written.mkdir(parents=True)
    (written / checkpoints.STATE).write_text('{"global_step": 1, "max_steps": 9}')
    return checkpoints.publish(folder, step, limit, record)


def test_older_checkpoints_go_only_when_the_new_one_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (9, 10):
        put(tmp_path, step, limit=1)
    assert [path.name for path in checkpoints.found(tmp_path)] == ["checkpoint-10"]  # by number, not by name

    def fail(*args: Any) -> None:
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="I/O"):
            put(tmp_path, 11, limit=1)
    assert [path.name for path in checkpoints.found(tmp_path)] == ["checkpoint-10"]
    assert checkpoints.damage(tmp_path / "checkpoint-10") is None


def test_what_was_all_trained_is_only_finished(
    checkpoint: Path, data: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saving the result fails after the last step; the next run takes no step, and gives the same."""
    from posttrain.train import sft

    recipe, folder = recipe_for(checkpoint, sft=SFT), tmp_path / "sft"

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(sft, "save_checkpoint", fail)
        with pytest.raises(OSError, match="I/O"):
            run_stage("sft", recipe, folder, {"data": data})
    again = run_stage("sft", recipe, folder, {"data": data}, resume=True)
    said = again.console.file.getvalue()  # type: ignore[attr-defined]
    assert "all 6 steps were taken before" in said
    assert "step 6/6" not in said
    assert again.metrics["steps"] == 6
    assert again.metrics["after/loss"] < again.metrics["before/loss"]
    assert_equal(whole, folder)


def test_a_saved_checkpoint_that_is_not_what_was_trained_is_an_error(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posttrain.train import finish

    recipe = recipe_for(checkpoint, sft=replace(SFT, max_steps=1))
    save_full = finish.save_full

    def garble(model: Any, folder: Path, **kwargs: Any) -> None:
        with torch.no_grad():
            next(model.parameters())[0, 0] += 1e-3  # after its logits were taken, in the saved copy too
        save_full(model, folder, **kwargs)

    monkeypatch.setattr(finish, "save_full", garble)
    monkeypatch.setattr(finish, "TOLERANCE", {"float32": 1e-6})
    with pytest.raises(RuntimeError, match="does not give what was trained: on a row of"):
        run_stage("sft", recipe, tmp_path / "one", {"data": data})

    def lose(model: Any, folder: Path, **kwargs: Any) -> None:
        save_full(model, folder, **kwargs)
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[3, 3] += 1e-3

    monkeypatch.setattr(finish, "save_full", lose)
    with pytest.raises(RuntimeError, match=r"1 of \d+ weights differ, the first is model.layers.1.mlp.up_proj.weight"):
        run_stage("sft", recipe, tmp_path / "two", {"data": data})
