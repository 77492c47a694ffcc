"""Jobs in processes of their own: started, waited for, ended with this one, and what they failed of."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from posttrain.release.environment import child_environment

_PACKAGE_PARENT = Path(__file__).resolve().parents[3]
_PATIENCE = 10  # seconds that a job has to end when it is told to
_SHOWN = 300  # characters of a reason


class WorkerFailed(Exception):
    """A job ended without a result; the text says why, without paths of this machine."""


class Worker:
    """Runs jobs one after another.

    Args:
        work: A folder for their files and logs.
        device: `cpu` or `cuda`; on a CPU no GPU is shown to them.
        threads: Threads of torch, or None for its own choice.
        online: Whether they may reach the hub, which only code of a repository's own can need.
    """

    def __init__(self, work: Path, *, device: str, threads: int | None, online: bool) -> None:
        self.work = work
        self._device = device
        self._threads = threads
        self._online = online

    def run(self, kind: Literal["quantise", "measure"], name: str, job: dict[str, Any]) -> dict[str, Any]:
        """Run a job and return its result.

        Raises:
            WorkerFailed: It failed, or was killed.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        job_file, result_file = self.work / f"{name}.job.json", self.work / f"{name}.result.json"
        result_file.unlink(missing_ok=True)
        job_file.write_text(json.dumps({"kind": kind, "threads": self._threads, "job": job}), encoding="utf-8")
        command = [sys.executable, "-m", "posttrain.release.quantize.worker", str(job_file), str(result_file)]
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._environment()
            )
            try:
                code = process.wait()
            finally:
                _end(process)
        if code != 0 or not result_file.is_file():
            raise WorkerFailed(self._reason(code, self.log(name)))
        result = json.loads(result_file.read_text(encoding="utf-8"))
        assert isinstance(result, dict)
        return result

    def log(self, name: str) -> Path:
        """Return the file of what a job prints."""
        return self.work / f"{name}.log"

    def _environment(self) -> dict[str, str]:
        environment = child_environment()
        if not self._online:
            environment["HF_HUB_OFFLINE"] = "1"
        if self._device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        environment["TOKENIZERS_PARALLELISM"] = "false"
        # Kernels would be compiled at the first forward pass, for minutes on a CPU, to generate a few tokens.
        environment["TORCHDYNAMO_DISABLE"] = "1"
        paths = [str(_PACKAGE_PARENT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        return environment

    def _reason(self, code: int, log: Path) -> str:
        if code < 0:
            killed = signal.Signals(-code).name
            return f"its process was ended by {killed}" + (" (out of memory?)" if killed == "SIGKILL" else "")
        text = log.read_text(encoding="utf-8", errors="replace")
        raised = re.findall(r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt)\b.*)$", text, flags=re.MULTILINE)
        last = raised[-1] if raised else next(iter(text.strip().splitlines()[-1:]), f"exit code {code}")
        return without_paths(last)[:_SHOWN].strip()


def without_paths(text: str) -> str:
    """Return a line with each absolute path cut to its last name, and without terminal colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return re.sub(r"(?<![\w.])/(?:[^\s/'\"`:,]+/)+([^\s/'\"`:,]*)", r"\1", plain)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
