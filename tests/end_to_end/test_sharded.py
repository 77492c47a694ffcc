"""FSDP2 and ZeRO-3 over two processes on the CPU: they train what one process trains, and go on from their shards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from posttrain.stages import Manifest
from tests.end_to_end.small import FOLDERS, build
from tests.helpers import ROOT, environment

FSDP = [f"launch.config={ROOT}/launch/accelerate/fsdp2-cpu.yaml"]
LORA = "{stage}.lora={{r: 4, alpha: 8, merge: {merge}}}"
# accelerate joins DeepSpeed's processes on GPUs only.
JOIN_ON_CPU = """\
import os
if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true" and "LOCAL_RANK" in os.environ:
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType
    PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_CPU)
"""


def deepspeed_on_cpu(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have processes started from here run DeepSpeed on the CPU; return the overrides that launch them with ZeRO-3.

    The configuration is the one for GPUs, but for the number of processes and the precision.
    """
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    if shutil.which("g++") is None:
        pytest.skip("DeepSpeed compiles its communication on a CPU with g++")
    (here / "hook").mkdir()
    (here / "hook/sitecustomize.py").write_text(JOIN_ON_CPU)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here / "hook"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    config = yaml.safe_load((ROOT / "launch/accelerate/zero3.yaml").read_text())
    (here / "zero3.yaml").write_text(yaml.safe_dump(config | {"num_processes": 2, "mixed_precision": "no"}))
    return ["launch.config=zero3.yaml", "launch.cpu=false"]


def start(stage: str, output: str, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "posttrain", stage, f"{stage}.yaml", f"output_dir={output}", *overrides]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(stage: str, output: str, *overrides: str) -> str:
    process = start(stage, output, *overrides)
    said = process.communicate(timeout=900)[0]  # DeepSpeed compiles for minutes on a busy machine
    assert process.returncode == 0, said
    return said


def assert_as_one_process(stage: str, output: str = "cut", file: str = "model.safetensors") -> None:
    """The losses, the held-out figures and the weights are those of one process, but for rounding."""
    folders = [Path(name, FOLDERS[stage]) for name in ("whole", output)]
    assert Manifest.read(folders[1]).world_size == 2
    assert Manifest.read(folders[1]).metrics["reload_difference"] < 1e-5
    one, two = (json.loads((folder / "history.json").read_text()) for folder in folders)
    for before, after in zip(one, two, strict=True):
        for key in ("loss", "eval_loss", "rewards/margins"):
            assert (key in before) == (key in after)
            if key in before:
                assert after[key] == pytest.approx(before[key], rel=1e-4, abs=1e-5), (folders[1], key)
    alone, together = (load_file(folder / file) for folder in folders)
    assert alone.keys() == together.keys()
    for name, weight in alone.items():
        assert torch.allclose(weight, together[name], rtol=1e-3, atol=1e-4), name


def cut_off(stage: str, pattern: str, *overrides: str) -> None:
    """Start training, and end it by SIGTERM when there is a checkpoint, whose shards are looked for."""
    process = start(stage, "cut", *overrides)
    until = time.monotonic() + 300
    work = f".building/{FOLDERS[stage]}-*/.work"
    while not list(Path("cut").glob(f"{work}/checkpoint-3")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    assert len(list(Path("cut").glob(f"{work}/checkpoint-*/{pattern}"))) == 2


def test_fsdp2_trains_what_one_process_trains(here: Path, checkpoint: Path) -> None:
    build("sft", here, checkpoint)
    said = run("sft", "cut", *FSDP)
    assert "weights in shards over 2 processes (fsdp)" in said
    assert_as_one_process("sft")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["cpt", "dpo"])
def test_fsdp2_trains_the_other_stages(here: Path, checkpoint: Path, stage: str) -> None:
    build(stage, here, checkpoint)
    run(stage, "cut", *FSDP)
    assert_as_one_process(stage)


@pytest.mark.parametrize(
    ("stage", "merge"),
    [
        pytest.param("sft", True, marks=pytest.mark.slow, id="sft-merged"),
        pytest.param("sft", False, marks=pytest.mark.long, id="sft-adapter"),
        pytest.param("dpo", True, marks=pytest.mark.long, id="dpo-merged"),
        pytest.param("dpo", False, marks=pytest.mark.slow, id="dpo-adapter"),
    ],
)
def test_fsdp2_with_lora(here: Path, checkpoint: Path, stage: str, merge: bool) -> None:
    build(stage, here, checkpoint)
    lora = LORA.format(stage=stage, merge=str(merge).lower())
    shutil.rmtree(Path("whole", FOLDERS[stage]))
    run(stage, "whole", lora)
    run(stage, "cut", lora, *FSDP)
    assert_as_one_process(stage, file="model.safetensors" if merge else "adapter_model.safetensors")


@pytest.mark.parametrize(
    "lora",
    [
        pytest.param(False, marks=pytest.mark.slow, id="full"),
        pytest.param(True, marks=pytest.mark.long, id="lora"),
    ],
)
def test_fsdp2_goes_on_from_its_shards_to_the_last_bit(here: Path, checkpoint: Path, lora: bool) -> None:
    build("sft", here, checkpoint)
    overrides = [*FSDP, *([LORA.format(stage="sft", merge="true")] if lora else [])]
    shutil.copytree("cut", "uncut")
    run("sft", "uncut", *overrides)
    cut_off("sft", "pytorch_model_fsdp_0/*.distcp", *overrides)
    assert "continuing" in run("sft", "cut", *overrides)
    one, other = (load_file(Path(name, "sft/model.safetensors")) for name in ("uncut", "cut"))
    assert all(one[name].equal(other[name]) for name in one)


@pytest.mark.slow
def test_shards_are_not_taken_for_whole_weights(here: Path, checkpoint: Path) -> None:
    build("sft", here, checkpoint)
    cut_off("sft", "pytorch_model_fsdp_0/*.distcp", *FSDP)
    process = start("sft", "cut")
    said = process.communicate(timeout=100)[0]
    assert process.returncode == 2
    assert "was saved with sharding 'fsdp', and this run has 'none'; launch it as before" in " ".join(said.split())


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_zero3_trains_what_one_process_trains(
    here: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, stage: str, lora: bool
) -> None:
    zero = deepspeed_on_cpu(here, monkeypatch)
    build(stage, here, checkpoint)
    adapter = [LORA.format(stage=stage, merge="true")] if lora else []
    if lora:
        shutil.rmtree(Path("whole", FOLDERS[stage]))
        run(stage, "whole", *adapter)
    assert "weights in shards over 2 processes (deepspeed)" in run(stage, "cut", *adapter, *zero)
    assert_as_one_process(stage)


@pytest.mark.slow
def test_zero3_goes_on_from_its_shards(here: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero = deepspeed_on_cpu(here, monkeypatch)
    build("sft", here, checkpoint)
    cut_off("sft", "global_step*/*optim_states.pt", *zero)
    assert "continuing" in run("sft", "cut", *zero)
    assert_as_one_process("sft")
