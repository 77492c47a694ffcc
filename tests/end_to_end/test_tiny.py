"""The tiny recipe as it is: what it promises to whoever runs it, and the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.stages import Manifest
from tests.helpers import ROOT, run_python, snapshot

pytestmark = pytest.mark.slow


def run_tiny(output: Path, *options: str) -> str:
    command = ["-m", "posttrain", "run", "recipes/tiny.yaml", f"output_dir={output}", *options]
    done = run_python(command, at=ROOT, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped at step" not in done.stderr, "a signal from elsewhere ended the run"
    return done.stdout


def test_tiny_learns_and_comes_out_the_same_twice(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    printed = run_tiny(one)
    sft, dpo = (Manifest.read(one / folder).metrics for folder in ("sft", "instruct"))
    assert sft["after/loss"] <= sft["before/loss"] * 2 / 3
    assert dpo["after/rewards/accuracies"] > 0.8
    assert f"preference accuracy {dpo['after/rewards/accuracies']:.3f}" in printed
    for picture in ("sft/loss.png", "instruct/loss.png", "instruct/reward_margin.png"):
        assert (one / picture).read_bytes().startswith(b"\x89PNG")
        assert str(one / picture) in printed

    before = snapshot(one)
    folders = "data, base, tokens-sft, tokens-preference, sft, ref_logps, instruct, eval, release"
    assert run_tiny(one) == f"nothing to do: {folders} in {one} are complete\n"
    assert snapshot(one) == before

    run_tiny(two, "--until", "dpo")
    for folder in ("sft", "instruct"):
        assert (one / folder / "model.safetensors").read_bytes() == (two / folder / "model.safetensors").read_bytes()
        assert Manifest.read(one / folder).digest == Manifest.read(two / folder).digest
