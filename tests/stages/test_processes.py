"""Several processes: the lock, a kill in the middle, and the ranks of one launch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.stages import Manifest
from posttrain.stages.ranks import meeting_folder

_PROGRAM = Path(__file__).with_name("fakes.py")
_ROOT = _PROGRAM.parents[2]


def start(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    """Start the program of `fakes`."""
    command = [sys.executable, str(_PROGRAM), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), **variables}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for a process and return what it printed."""
    try:
        output, errors = process.communicate(timeout=40)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == code, output + errors
    return output


def start_ranks(*arguments: str | Path, count: int = 2, run_id: str = "1") -> list[subprocess.Popen[str]]:
    """Start the processes of one launch, the last rank first."""
    launch = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": run_id}
    return [start(*arguments, RANK=str(rank), **launch) for rank in reversed(range(count))]


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    """Read what a process prints up to a line."""
    assert process.stdout is not None
    while (read := process.stdout.readline()) != f"{line}\n":
        assert read, f"the process ended before it printed {line!r}"


def test_second_run_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    first = start(tmp_path, "--slow", "train", "30")
    wait_for(first, "in train")
    refused = end(start(tmp_path), code=2)
    assert f"another posttrain run (pid {first.pid}, host " in refused
    assert "choose another output_dir" in refused
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert "rank - built train+ tune" in end(start(tmp_path)), "the lock must go with the process"


def test_kill_leaves_no_half_folder(tmp_path: Path) -> None:
    killed = start(tmp_path, "--slow", "rows", "30")
    wait_for(killed, "in rows")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "data").exists()
    assert "rank - built rows train tune" in end(start(tmp_path))


def test_two_ranks_build_each_stage_once(tmp_path: Path) -> None:
    one, zero = start_ranks(tmp_path, "--slow", "rows", "1")
    assert "rank 0 built rows train tune" in end(zero)
    assert end(one) == "rank 1 built train tune\n", "rank 1 must not print"
    files = Manifest.read(tmp_path / "sft").files
    assert {"model-0.txt", "model-1.txt"} <= files.keys(), "rank 0 must wait for what rank 1 writes"
    assert Manifest.read(tmp_path / "sft").world_size == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == [".lock"]


def test_rank_0_waits_for_a_slow_rank(tmp_path: Path) -> None:
    launch = {"WORLD_SIZE": "2", "MASTER_PORT": "1"}
    zero = start(tmp_path, RANK="0", **launch)
    one = start(tmp_path, "--slow", "train", "1.5", RANK="1", **launch)
    assert "built rows train tune" in end(zero)
    assert "built train tune" in end(one)
    assert "model-1.txt" in Manifest.read(tmp_path / "sft").files


def test_ranks_agree_under_force_and_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    for process in start_ranks(tmp_path):
        end(process)
    one, zero = start_ranks(tmp_path, "--force", "train", run_id="1")
    assert "rank 0 built train\n" in end(zero)
    assert end(one) == "rank 1 built train\n"
    one, zero = start_ranks(tmp_path)
    assert "nothing to do" in end(zero)
    assert end(one) == "rank 1 built \n"


def test_decisions_of_a_killed_launch_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    folder = meeting_folder(tmp_path)
    folder.mkdir(parents=True)
    old = {"token": "t", "ranks": {"1": "n"}, "stages": {"rows": {"action": "reuse"}}, "failed": True, "code": 9}
    (folder / "decisions.json").write_text(json.dumps(old))
    launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "1"}
    early = start(tmp_path, "--until", "train", RANK="1", **launch)  # hears of the old launch only
    with pytest.raises(subprocess.TimeoutExpired):
        early.wait(timeout=1.0)
    early.kill()
    early.communicate()
    (folder / "rank-1.json").write_text(json.dumps({"number": "n", "token": "t", "built": ["train"], "left": True}))
    zero = start(tmp_path, "--until", "train", RANK="0", **launch)
    wait_for(zero, f"train: building {tmp_path}/sft (it is not there yet)")
    one = start(tmp_path, "--until", "train", RANK="1", **launch)
    assert "rank 0 built rows train" in end(zero)
    assert end(one) == "rank 1 built train\n"
    assert "model-1.txt" in Manifest.read(tmp_path / "sft").files


def test_every_rank_ends_when_rank_0_refuses(tmp_path: Path) -> None:
    end(start(tmp_path))
    one, zero = start_ranks(tmp_path, "--rate", "0.5")
    assert "sft.learning_rate: was 0.1, is 0.5" in end(zero, code=2)
    assert end(one, code=2) == "rank 1 built \n"
    assert not (tmp_path / ".ranks").exists()


def test_every_rank_ends_in_order_when_a_signal_comes_before_the_first_step(tmp_path: Path) -> None:
    one, zero = start_ranks(tmp_path, "--slow", "train", "30")
    for process in (zero, one):
        wait_for(process, "in train")
    for process in (zero, one):
        process.send_signal(signal.SIGTERM)
    told = "interrupted: train stopped before its first step, so nothing was lost; the same command goes on from there"
    assert told in end(zero)
    assert end(one).startswith("rank 1 built train"), "rank 1 must not print"
    assert not (tmp_path / "sft").exists()
    assert not (tmp_path / ".ranks").exists()
    one, zero = start_ranks(tmp_path)
    assert "rank 0 built train+ tune" in end(zero)
    assert end(one) == "rank 1 built train+ tune\n"


def test_every_rank_ends_when_a_build_refuses(tmp_path: Path) -> None:
    one, zero = start_ranks(tmp_path / "out", "--refuse", "train", "--until", "train")
    assert "refused: there is nothing to train on" in end(zero, code=2)
    assert end(one, code=2).startswith("rank 1 built")
    assert not (tmp_path / "out" / "sft").exists()
