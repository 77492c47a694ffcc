"""Runs in processes of their own: killed at any moment, told to stop, told twice; and what memory they take."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posttrain.data.generate.parts import part_files, read_part
from posttrain.data.generate.run import run_rows
from tests.data.generate.run_scripted import PART
from tests.data.generate.scripted import Scripted, files, respond, rows
from tests.helpers import environment

ROWS = 400


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """Return what an uninterrupted run writes."""
    folder = tmp_path / "whole"
    asyncio.run(run_rows(rows(ROWS), respond, Scripted(), folder, concurrency=1, part_rows=PART))
    return files(folder)


def start(folder: Path, *options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.data.generate.run_scripted", str(folder), *map(str, options)]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def wait_for(log: Path, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 30
    while lines(log) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it asks nothing any more"
        time.sleep(0.002)


def test_a_run_that_is_killed_goes_on_and_ends_the_same(tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder, moments = tmp_path / "killed", random.Random(3)
    for number in range(5):
        kept = len(part_files(folder)) * PART
        log = tmp_path / f"asked-{number}"
        process = start(folder, "--rows", ROWS, "--seed", number, "--longest", 0.03, "--log", log)
        wait_for(log, moments.randint(1, 90), process)
        time.sleep(moments.random() * 0.02)
        process.kill()
        process.communicate()
        assert min(map(int, log.read_text().split())) >= kept
        parts = part_files(folder)
        numbers = [row["number"] for path in parts for row in read_part(path)]
        assert numbers == list(range(len(parts) * PART))
        assert all(path.read_bytes() == whole[path.name] for path in parts)
    kept = len(part_files(folder)) * PART
    assert 0 < kept < ROWS, "the moments are chosen so that there is something to go on from, and to do"
    log = tmp_path / "asked-last"
    process = start(folder, "--rows", ROWS, "--seed", 9, "--longest", 0.01, "--log", log)
    assert process.wait(60) == 0, process.communicate()[1]
    assert sorted(map(int, log.read_text().split())) == list(range(kept, ROWS))
    assert files(folder) == whole  # and nothing of a part that was being written


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_run(tmp_path: Path, whole: dict[str, bytes], number: signal.Signals) -> None:
    folder, log = tmp_path / "stopped", tmp_path / "asked"
    process = start(folder, "--rows", ROWS, "--longest", 0.2, "--log", log, "--concurrency", 32)
    wait_for(log, 100, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert f"stopped: stopped by {number.name} after " in said
    finished = int(said.split(" after ")[1].split()[0])
    # All that was asked has been waited for: what was finished in order is all of it.
    assert finished == lines(log)
    assert len(part_files(folder)) == finished // PART
    process = start(folder, "--rows", ROWS)
    assert process.wait(60) == 0, process.communicate()[1]
    assert files(folder) == whole


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals, code: int) -> None:
    folder, log = tmp_path / "stopped", tmp_path / "asked"
    process = start(folder, "--rows", ROWS, "--longest", 60, "--log", log)
    wait_for(log, 8, process)
    process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None, "after the first signal it waits for what it has asked"
    process.send_signal(number)
    process.communicate(timeout=5)
    assert process.returncode == code
    assert lines(log) == 8


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    code = (
        "import signal, threading\n"
        "from posttrain.data.generate.stop import stopping_on_signals\n"
        "before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)\n"
        "def work():\n"
        "    with stopping_on_signals() as stop:\n"
        "        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before\n"
        "        stop.request()\n"
        "        assert stop.requested and stop.signal is None\n"
        "        print('done')\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
        "thread.join()\n"
        "with stopping_on_signals() as stop:\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    assert stop.signal == signal.SIGTERM\n"
        "assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """100,000 rows of 4 kB are 400 MB, of which a run may hold the window and a part."""
    process = start(tmp_path)
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert int(printed) < 60 << 20
    assert os.path.getsize(tmp_path / "many" / "part-00096.parquet") > 0
