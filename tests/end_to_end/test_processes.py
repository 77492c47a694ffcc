"""Two processes on the CPU train what one trains, however they are started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from posttrain.stages import Manifest
from tests.end_to_end.conftest import MINIATURE
from tests.helpers import ROOT, environment

TRAINED = ("base", "sft", "instruct")
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]


def start_in_clone(command: list[str]) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_as_one_process(output: Path, built: Path) -> None:
    """The loss of every step, the held-out figures and the weights are those of one process, but for rounding."""
    for folder in TRAINED:
        manifest = Manifest.read(output / folder)
        assert manifest.world_size == 2
        one, two = (json.loads((each / folder / "history.json").read_text()) for each in (built, output))
        for before, after in zip(one, two, strict=True):
            for key in ("loss", "eval_loss", "eval_tokens", "eval_pairs", "rewards/margins"):
                assert (key in before) == (key in after)
                if key in before:
                    assert after[key] == pytest.approx(before[key], rel=1e-5, abs=1e-5), (folder, key)
        alone, together = (load_file(each / folder / "model.safetensors") for each in (built, output))
        assert alone.keys() == together.keys()
        for name, weight in alone.items():
            assert torch.allclose(weight, together[name], rtol=1e-4, atol=1e-4), (folder, name)
    for folder in ("data", "tokens-sft", "tokens-preference"):
        assert Manifest.read(output / folder).digest == Manifest.read(built / folder).digest
    assert not (output / ".ranks").exists()


@pytest.mark.slow
def test_run_starts_two_processes_and_gets_what_one_gets(built: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    arguments = ["run", "tiny", *MINIATURE, f"output_dir={output}", "launch.num_processes=2"]
    printed = start_in_clone([sys.executable, "-m", "posttrain", *arguments])
    assert_as_one_process(output, built)
    assert printed.count("preference accuracy") == 1  # one process speaks
    assert printed.count("dpo  held out:") == 1


@pytest.mark.slow
def test_reference_log_probabilities_of_two_processes_are_those_of_one(built: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    for name in ("base", "data", "tokens-sft", "tokens-preference", "sft"):
        shutil.copytree(built / name, output / name)
    arguments = ["ref-logps", "tiny", *MINIATURE, f"output_dir={output}", "launch.num_processes=2"]
    start_in_clone([sys.executable, "-m", "posttrain", *arguments])
    manifest = Manifest.read(output / "ref_logps")
    assert manifest.world_size == 2
    assert manifest.digest == Manifest.read(built / "ref_logps").digest


@pytest.mark.slow
def test_accelerate_launch_typed_as_it_is_in_the_readme(built: Path, tmp_path: Path) -> None:
    """On CPUs accelerate 1.15 starts one process, whatever the number: posttrain starts both."""
    output = tmp_path / "output"
    arguments = ["dpo", "recipes/tiny.yaml", *MINIATURE, f"output_dir={output}"]
    start_in_clone([*ACCELERATE, "--cpu", "--num_processes", "2", "posttrain", *arguments])
    assert_as_one_process(output, built)


@pytest.mark.slow
def test_launch_configuration_that_is_shipped(tmp_path: Path) -> None:
    output = tmp_path / "output"
    config = ROOT / "launch/accelerate/cpu.yaml"
    arguments = ["run", "tiny", *MINIATURE, f"output_dir={output}", f"launch.config={config}", "--until", "cpt"]
    start_in_clone([sys.executable, "-m", "posttrain", *arguments])
    assert Manifest.read(output / "base").world_size == 2


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run(tmp_path: Path) -> None:
    """No deadlock: the launcher ends the other rank, the run says so, and the same command goes on."""
    output = tmp_path / "output"
    arguments = ["run", "tiny", *MINIATURE, f"output_dir={output}", "launch.num_processes=2", "--until", "cpt"]
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    import threading\n"
        "    def end():\n"
        "        import time\n"
        "        from pathlib import Path\n"
        f"        while not list(Path({str(output)!r}).glob('.building/base-*/.work')):\n"
        "            time.sleep(0.05)\n"
        "        os._exit(9)\n"
        "    threading.Thread(target=end, daemon=True).start()\n"
    )
    poisoned = environment()
    poisoned["PYTHONPATH"] = os.pathsep.join([str(tmp_path), poisoned.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "posttrain", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=poisoned, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode not in (0, 2)
    assert "the launcher ended with exit code" in done.stdout
    assert not (output / "base").exists()
    start_in_clone(command)
    assert (output / "base/model.safetensors").is_file()
