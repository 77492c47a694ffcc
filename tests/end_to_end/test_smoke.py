"""Every recipe of the package, whole and small, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.cli import main
from posttrain.recipe import builtin_recipes, load
from tests.helpers import ROOT, environment

pytest.importorskip("heliport")


# What `8b` and `quantize-causallm-7b` run is in `70b` and in `tiny-quantized` and `quantize-poro-34b`.
LIKE_OTHERS = ("8b", "quantize-causallm-7b")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name in LIKE_OTHERS else pytest.mark.slow)
        for name in sorted(name for name, _, _ in builtin_recipes())
    ],
)
def test_a_recipe_runs_whole(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if load(name).recipe.quantize is not None:
        pytest.importorskip("gptqmodel")
    assert main(["run", name, "--smoke", "output_dir=out"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main(["run", name, "--smoke", "output_dir=out"]) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_train_a_recipe_as_it_is_written(tmp_path: Path) -> None:
    accelerate = Path(sys.executable).with_name("accelerate")
    command = [str(accelerate), "launch", "--cpu", "--num_processes", "2", "posttrain", "sft", "recipes/70b.yaml"]
    done = subprocess.run(
        [*command, f"output_dir={tmp_path / 'out'}", "--smoke"],
        cwd=ROOT,
        env={**environment(), "OMP_NUM_THREADS": "1", "PATH": f"{accelerate.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out-smoke" / "sft" / "model.safetensors").is_file()


def test_another_architecture_is_kept(tmp_path: Path) -> None:
    from transformers import AutoConfig, BloomConfig

    from posttrain.recipe.schema import Model
    from posttrain.train.stand_in import make_stand_in

    base = tmp_path / "bloom"
    BloomConfig(n_layer=54, n_head=56, hidden_size=7168, vocab_size=128000).save_pretrained(base)
    said = make_stand_in(Model(base="x", chat_template="chatml"), str(base), tmp_path / "small", 1, reward=True)
    assert said == "a tiny BloomForCausalLM with random weights"
    config = AutoConfig.from_pretrained(tmp_path / "small")
    assert (config.model_type, config.n_layer, config.hidden_size) == ("bloom", 2, 64)
    assert (tmp_path / "small-reward" / "model.safetensors").is_file()
