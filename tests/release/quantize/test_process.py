"""Jobs in processes of their own: their result, and why they failed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from posttrain.release.quantize.process import Worker, WorkerFailed, without_paths
from tests.helpers import ROOT


def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Worker:
    """Return a worker whose Python is a shell script; `$3` is the job's file and `$4` that of the result."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return Worker(tmp_path / "work", device="cpu", threads=3, online=False)


def test_the_result_is_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTQMODEL_CPU_WORKERS", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    script = (
        'echo "{\\"noise\\": 1}"; grep -q \'"threads": 3\' "$3" && test -z "$LOCAL_RANK" && '
        'echo "{\\"workers\\": $GPTQMODEL_CPU_WORKERS, \\"offline\\": $HF_HUB_OFFLINE}" > "$4"'
    )
    found = worker(tmp_path, monkeypatch, script).run("measure", "a", {"x": 1})
    assert found == {"workers": 2, "offline": 1}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Traceback'; echo 'ValueError: first'; echo 'a.b.RuntimeError: /a/b/c.py fails'; exit 1",
         "a.b.RuntimeError: c.py fails"),
        ("kill -9 $$", "its process was ended by SIGKILL (out of memory?)"),
        ("echo 'only words'; exit 3", "only words"),
        ("exit 4", "exit code 4"),
        ("exit 0", "exit code 0"),
    ],
)  # fmt: skip
def test_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str) -> None:
    with pytest.raises(WorkerFailed) as caught:
        worker(tmp_path, monkeypatch, script).run("measure", "a", {})
    assert str(caught.value) == reason


def test_an_old_result_is_not_taken_for_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker(tmp_path, monkeypatch, 'echo "{}" > "$4"').run("measure", "a", {})
    with pytest.raises(WorkerFailed):
        worker(tmp_path, monkeypatch, "true").run("measure", "a", {})


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("cannot read /home/me/x/model.safetensors: no", "cannot read model.safetensors: no"),
        ("'/tmp/a b/c' and \x1b[31mred\x1b[0m", "'a b/c' and red"),
        ("1/2 of and/or", "1/2 of and/or"),
    ],
)
def test_paths_are_cut_to_their_last_name(text: str, plain: str) -> None:
    assert without_paths(text) == plain


def test_a_worker_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    worker = (
        "import os, pathlib, sys, time; from posttrain.release.quantize.worker import end_with; "
        "end_with(os.getppid()); pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, *sys.argv[1:]]); "
        "print(child.pid, flush=True); child.wait()"
    )
    ready = tmp_path / "ready"
    command = [sys.executable, "-c", parent, "-c", worker, str(ready)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        until(ready.exists)
        os.kill(pid, 0)  # it is there
        process.kill()
    until(lambda: not alive(pid))


def alive(pid: int) -> bool:
    """Say whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(holds: Callable[[], bool]) -> None:
    """Wait for something, at most a minute."""
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")
