"""The scripts that serve a model and run generation under Slurm: no user's paths, and they stop in order."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import ROOT

LAUNCH = ROOT / "launch"
JOBS = sorted((LAUNCH / "slurm").glob("generate*.sbatch"))
SCRIPTS = [LAUNCH / "serve_vllm.sh", *JOBS]
_OWN_PATHS = re.compile(r"(?<![\w$}.-])/(home|users|scratch|project|projappl|flash|appl|work|mnt|data|root)\b[^\s\"']*")
_VLLM = """#!{python}
import http.server, json, os, pathlib, sys
pathlib.Path(os.environ["SEEN"], f"vllm-{{os.getpid()}}").write_text(
    json.dumps([sys.argv[1:], os.environ.get("ROCR_VISIBLE_DEVICES")]))
class Models(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Models).serve_forever()
"""
_POSTTRAIN = """#!{python}
import os, pathlib, signal, sys, time, urllib.request
seen = pathlib.Path(os.environ["SEEN"])
def stop(*_):
    time.sleep(0.3)  # what is under way is waited for
    (seen / f"drained-{{pathlib.Path(sys.argv[2]).stem}}").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
url = sys.argv[3].removeprefix("teacher.base_url=")
urllib.request.urlopen(url + "/models")
(seen / f"posttrain-{{pathlib.Path(sys.argv[2]).stem}}").write_text(" ".join(sys.argv[1:]))
if "QUICK" not in os.environ:
    time.sleep(30)
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid_and_name_no_place_of_a_user(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert os.access(script, os.X_OK)
    assert not _OWN_PATHS.findall(text)
    assert not re.search(r"project_\d", text)
    if (shellcheck := shutil.which("shellcheck")) is not None:
        subprocess.run([shellcheck, "--severity=warning", str(script)], check=True)


def test_there_are_jobs() -> None:
    assert [path.name for path in JOBS] == ["generate-lumi.sbatch", "generate.sbatch"]


@pytest.mark.parametrize("script", JOBS, ids=lambda path: path.name)
def test_jobs_are_told_early_of_their_end_and_go_back_into_the_queue(script: Path) -> None:
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script.read_text(), re.MULTILINE))
    assert "requeue" in options
    target, seconds = re.fullmatch(r"(B:USR1)@(\d+)", options["signal"]).groups()  # type: ignore[union-attr]
    assert target == "B:USR1", "the server must not get the signal"
    assert int(seconds) >= 600, "an answer may take teacher.timeout, 600 seconds"
    assert options["open-mode"] == "append"
    assert "account" not in options


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put stand-ins for what the scripts call in PATH; return the folder in which they note how they were called."""
    folder = tmp_path / "seen"
    folder.mkdir()
    commands = {
        "vllm": _VLLM.format(python=sys.executable),
        "posttrain": _POSTTRAIN.format(python=sys.executable),
        "scontrol": f'#!/bin/sh\necho "$@" >> {folder}/scontrol\n',
        # singularity exec --rocm IMAGE COMMAND...
        "singularity": '#!/bin/sh\nshift 3\nexec "$@"\n',
    }
    (tmp_path / "bin").mkdir()
    for name, text in commands.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    own = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_SUBMIT_DIR": str(ROOT), "MODEL": "m", "CONTAINER": "image.sif"}
    for name, value in {**own, "SEEN": str(folder), "TMPDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return folder


pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the scripts ask the server with curl")


def wait_for(seen: Path, pattern: str, count: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 40
    while len(list(seen.glob(pattern))) < count:
        assert process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < until
        time.sleep(0.05)


def alive(seen: Path) -> list[str]:
    pids = [path.name.removeprefix("vllm-") for path in seen.glob("vllm-*")]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize(("script", "recipes"), [("generate", ["a.yaml"]), ("generate-lumi", ["a.yaml", "b.yaml"])])
def test_a_job_near_its_end_drains_and_is_requeued(seen: Path, script: str, recipes: list[str]) -> None:
    job = subprocess.Popen(["bash", str(LAUNCH / "slurm" / f"{script}.sbatch"), *recipes])
    wait_for(seen, "posttrain-*", len(recipes), job)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 143
    assert sorted(path.name for path in seen.glob("drained-*")) == [f"drained-{name[0]}" for name in recipes]
    assert (seen / "scontrol").read_text().split() == ["requeue", os.environ["SLURM_JOB_ID"]]
    assert not alive(seen), "a server was left behind"
    if script == "generate-lumi":
        devices = sorted(path.read_text().rpartition(", ")[2] for path in seen.glob("vllm-*"))
        assert devices == ['"0,1,2,3"]', '"4,5,6,7"]']


@pytest.mark.parametrize("script", ["generate", "generate-lumi"])
def test_a_job_that_is_done_ends_well(seen: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICK", "1")
    job = subprocess.Popen(["bash", str(LAUNCH / "slurm" / f"{script}.sbatch"), "a.yaml"])
    assert job.wait(40) == 0
    (arguments,) = [path.read_text() for path in seen.glob("posttrain-*")]
    assert arguments.startswith("generate a.yaml teacher.base_url=http://127.0.0.1:")
    assert not (seen / "scontrol").exists()
    assert not alive(seen), "a server was left behind"


def test_a_server_that_does_not_start_is_said(seen: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "vllm").write_text("#!/bin/sh\nexit 3\n")
    found = subprocess.run([str(LAUNCH / "serve_vllm.sh")], capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 1
    assert "the server has ended" in found.stderr
