"""Killed, out of disk, or with a process gone: a run resumes to the same weights, or ends with a clear message."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from posttrain.train import checkpoints
from tests.end_to_end.small import FOLDERS, SAVE_EVERY, STEPS, build
from tests.helpers import environment, run_python

Make = Callable[[str], Path]


@pytest.fixture
def recipe(here: Path, checkpoint: Path) -> Make:
    """Write the recipe of a stage, with its rows, into the working folder and build it; see `small.build`."""
    return lambda stage: build(stage, here, checkpoint)


def attempts(here: Path, *options: str) -> dict[str, Any]:
    """Run `tests.end_to_end.kills` with options in the working folder."""
    done = run_python(["-m", "tests.end_to_end.kills", *options], here, timeout=240)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def assert_same_weights(stage: str) -> None:
    one, other = (load_file(Path(name, FOLDERS[stage], "model.safetensors")) for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("cpt", marks=pytest.mark.slow),
        pytest.param("sft", marks=pytest.mark.long),
        pytest.param("dpo", marks=pytest.mark.slow),
    ],
)
def test_killed_at_five_random_moments_it_gets_to_the_same_weights(here: Path, recipe: Make, stage: str) -> None:
    recipe(stage)
    command = [stage, f"{stage}.yaml", "output_dir=cut"]
    work = f"cut/.building/{FOLDERS[stage]}-*/.work"
    found = attempts(here, "--kills", "5", "--last", str(STEPS), "--seed", "7", "--work", work, "--", *command)
    assert found["codes"] == [-signal.SIGKILL] * 5 + [0]
    # No attempt begins more than SAVE_EVERY steps before where the one before it was killed.
    reached = 0
    for number, taken in enumerate(found["attempts"]):
        assert taken or number == 5, "nothing was left to train before the last kill"
        if taken:
            assert taken[0] >= reached - SAVE_EVERY
            assert taken == list(range(taken[0], taken[-1] + 1))
            reached = taken[-1]
    assert_same_weights(stage)


@pytest.mark.parametrize("stage", ["sft"])
def test_no_room_for_a_checkpoint_is_said_and_the_last_good_one_taken(here: Path, recipe: Make, stage: str) -> None:
    """After the first checkpoint no file may be as large as the optimiser's state."""
    recipe(stage)
    found = attempts(here, "--limit", "600000", "--", stage, f"{stage}.yaml", "output_dir=cut")
    assert found["codes"] == [2, 0]
    assert found["attempts"] == [list(range(2 * SAVE_EVERY)), list(range(SAVE_EVERY, STEPS))]
    said = (here / "full.log").read_text()
    assert f"posttrain: error: checkpoint-{2 * SAVE_EVERY} could not be saved: " in said
    assert f"checkpoint-{SAVE_EVERY} is whole, and the same command goes on from it" in said
    assert "Traceback" not in said
    assert_same_weights(stage)


@pytest.mark.slow
def test_a_small_disk_that_is_really_full(here: Path, recipe: Make) -> None:
    """The output folder is on a file system of two megabytes: one checkpoint fits, a second beside it does not."""
    small = here / "cut"
    recipe("sft")
    shutil.rmtree(small)
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        command = ["-m", "posttrain", "sft", "sft.yaml", "output_dir=cut"]
        done = run_python(command, here)
        assert done.returncode == 2, done.stderr
        assert re.search("could not be saved: (No space left|the disk, a quota).*; 0 MB are free", done.stderr)
        assert "is whole, and the same command goes on from it" in done.stderr
        (work,) = small.glob(".building/sft-*/.work")
        (good,) = checkpoints.found(work)
        assert checkpoints.damage(good) is None
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        assert run_python(command, here).returncode == 0
        assert_same_weights("sft")
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("sft", marks=pytest.mark.long),
        pytest.param("dpo", marks=pytest.mark.slow),
    ],
)
def test_two_processes_cut_off_end_well_and_go_on_to_the_same_weights(here: Path, recipe: Make, stage: str) -> None:
    recipe(stage)
    shutil.rmtree(Path("whole", FOLDERS[stage]))
    command = [sys.executable, "-m", "posttrain", stage, f"{stage}.yaml", "launch.num_processes=2"]
    done = subprocess.run(
        [*command, "output_dir=whole"], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        [*command, "output_dir=cut"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 100
    while not list(Path("cut").glob(f".building/{FOLDERS[stage]}-*/.work/checkpoint-3")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)
    assert process.returncode == 0, said[1]
    assert "the same command goes on from there" in "".join(said)
    done = subprocess.run([*command, "output_dir=cut"], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "continuing" in done.stdout
    assert "step 1/" not in done.stdout
    assert_same_weights(stage)


@pytest.mark.parametrize(
    ("stage", "processes"),
    [
        pytest.param("sft", 1, marks=pytest.mark.slow),
        pytest.param("dpo", 2, marks=pytest.mark.long),
    ],
)
def test_sigterm_before_the_first_step_is_said(here: Path, recipe: Make, stage: str, processes: int) -> None:
    recipe(stage)
    command = [sys.executable, "-m", "posttrain", stage, f"{stage}.yaml", "output_dir=cut"]
    command += [f"launch.num_processes={processes}"]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    while f"{stage}: building" not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
    time.sleep(0.5)  # torch and transformers are being imported
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 0, errors
    told = f"posttrain: {stage} stopped before its first step, so nothing was lost; the same command goes on from there"
    assert told in errors.splitlines()
    assert run_python(command[1:], here).returncode == 0
    if processes == 1:
        assert_same_weights(stage)


@pytest.mark.slow
def test_a_rank_that_dies_while_training_ends_the_run_within_seconds(here: Path, recipe: Make) -> None:
    recipe("sft")
    (here / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    import threading, time\n"
        "    from pathlib import Path\n"
        "    def end():\n"
        "        while not list(Path('cut').glob('.building/sft-*/.work/checkpoint-3')):\n"
        "            time.sleep(0.001)\n"
        "        Path('died').write_text(str(time.time()))\n"
        "        os.kill(os.getpid(), 9)\n"
        "    threading.Thread(target=end, daemon=True).start()\n"
    )
    poisoned = environment()
    poisoned["PYTHONPATH"] = os.pathsep.join([str(here), poisoned["PYTHONPATH"]])
    command = [sys.executable, "-m", "posttrain", "sft", "sft.yaml", "launch.num_processes=2", "output_dir=cut"]
    done = subprocess.run(command, env=poisoned, capture_output=True, text=True, timeout=120, check=False)
    assert time.time() - float((here / "died").read_text()) < 20
    assert done.returncode not in (0, 2)
    assert "the launcher ended with exit code" in done.stdout
    assert "goes on from there" in done.stdout
    (work,) = Path("cut").glob(".building/sft-*/.work")
    assert checkpoints.damage(checkpoints.found(work)[-1]) is None
    (here / "sitecustomize.py").unlink()
    assert subprocess.run(command, env=environment(), capture_output=True, check=False).returncode == 0
