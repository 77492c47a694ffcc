"""A stage that is built by one killed process after another; run as `python -m tests.end_to_end.kills`.

The libraries are imported once, and each attempt is a fork of this process, so that the attempts begin at once. What
came of it is printed as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import time
import traceback
from pathlib import Path
from typing import Any


def _in_fork(arguments: list[str], steps: Path, limit: int | None) -> int:
    """Start `posttrain` in a fork that notes each step it takes; return its process id.

    Args:
        arguments: Of the command.
        steps: A file that gets the number of each step before it is taken.
        limit: The size in bytes that no file may exceed once there is a checkpoint; None for no such limit.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        from transformers import TrainerCallback

        from posttrain.cli import main
        from posttrain.train import trl

        class Note(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                with steps.open("a") as file:
                    file.write(f"{state.global_step}\n")

            def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if limit is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        original = trl.base.BuildTrainer.__init__

        def noted(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            self.add_callback(Note())

        trl.base.BuildTrainer.__init__ = noted  # type: ignore[method-assign]
        log = os.open(steps.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = main(arguments)
    except BaseException:  # noqa: BLE001 - a fork must not go on with what its parent was doing
        traceback.print_exc()
    finally:
        os._exit(code)


def _wait(pid: int, timeout: float = 120.0) -> int:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"process {pid} did not end within {timeout} s")


def _taken(steps: Path) -> list[int]:
    return [int(line) for line in steps.read_text().split()] if steps.exists() else []


def kill_at_random(arguments: list[str], steps: Path, work: Path, last: int, kills: int, seed: int) -> dict[str, Any]:
    """Kill attempts at random moments, each after a later step than the one before, and let one more end.

    The moment is up to 60 ms after the step begins; the last kill comes while a checkpoint is written.

    Args:
        arguments: Of the command.
        steps: See `_in_fork`; one file an attempt is made beside it.
        work: Pattern of the folder, from the working folder, in which checkpoints are written.
        last: The number of steps of the whole training.
        kills: How many.
        seed: Of the moments.

    Returns:
        `attempts`: the steps that each took; `codes`: how each ended.
    """
    source = random.Random(seed)
    moments: list[int | None] = [*sorted(source.sample(range(1, last - 2), kills - 1)), None]
    attempts, codes = [], []
    for number, moment in enumerate(moments):
        file = steps.with_name(f"attempt-{number}")
        pid = _in_fork(arguments, file, None)
        delay = source.random() * 0.06
        until = time.monotonic() + 60
        while time.monotonic() < until and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            if moment is None and list(Path().glob(f"{work}/.saving/checkpoint-*/*")):
                break
            if moment is not None and max(_taken(file), default=-1) >= moment:
                time.sleep(delay)
                break
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        codes.append(_wait(pid))
        attempts.append(_taken(file))
    file = steps.with_name("attempt-last")
    codes.append(_wait(_in_fork(arguments, file, None)))
    attempts.append(_taken(file))
    return {"attempts": attempts, "codes": codes}


def fill_disk(arguments: list[str], steps: Path, limit: int) -> dict[str, Any]:
    """Run one attempt for which files grow too large after its first checkpoint, and one more without the limit."""
    files = [steps.with_name(name) for name in ("full", "after")]
    codes = [_wait(_in_fork(arguments, file, size)) for file, size in zip(files, (limit, None), strict=True)]
    return {"attempts": [_taken(file) for file in files], "codes": codes}


def main() -> None:
    """Print what came of the attempts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--last", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--work", default="")
    parser.add_argument("arguments", nargs="+")
    options = parser.parse_args()
    import posttrain.train.trl  # noqa: F401 - what each attempt would import

    steps = Path("steps").resolve()
    if options.limit:
        result = fill_disk(options.arguments, steps, options.limit)
    else:
        result = kill_at_random(options.arguments, steps, options.work, options.last, options.kills, options.seed)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
