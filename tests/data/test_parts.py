"""Parts of sources over processes: the same bytes for any number of them, and after any interruption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from posttrain.data import assemble, read
from posttrain.data.build import build
from posttrain.data.part import Task, Worker, finished
from posttrain.data.sources import entry_options
from posttrain.errors import UserError
from posttrain.recipe.schema import Data, Validation
from posttrain.recipe.schema_data import Duplicates, Filters, LengthFilter, NearDuplicates, RepetitionFilter
from tests.helpers import environment, snapshot

SCRIPT = """
import sys
from pathlib import Path
from posttrain.data import read
from posttrain.data.build import build
from tests.data.test_parts import CHUNK, section

if __name__ == "__main__":
    read.CHUNK_ROWS = CHUNK
    folder = Path(sys.argv[1])
    build(section(folder, num_proc=2), 42, folder / "killed", work=folder / "killed" / ".work")
"""
CHUNK = 50


def section(folder: Path, num_proc: int) -> Data:
    """Return sources whose rows are filtered, repeated, sampled and near duplicates of each other."""
    return Data(
        sft=[
            {"source": "generic", "name": "many", "path": str(folder / "many.jsonl"), "repeat": 1.5},
            {"source": "generic", "name": "more", "path": str(folder / "more.jsonl"), "fraction": 0.8},
            {"source": "oasst", "path": "builtin:samples/oasst-messages.jsonl"},
        ],
        preference=[{"source": "helpsteer3", "path": "builtin:samples/helpsteer3.jsonl"}],
        filters=Filters(length=LengthFilter(max_response=120), repetition=RepetitionFilter(min_words=4, ngram=2)),
        duplicates=Duplicates(near=NearDuplicates(permutations=64)),
        validation=Validation(fraction=0.1),
        num_proc=num_proc,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, first in (("many", 0), ("more", 400)):
        rows: list[dict[str, Any]] = [
            {"prompt": f"Name {n} things that a house number {n * n} has.", "completion": "Wall. " * (n % 30 + 1)}
            for n in range(first, first + 600)
        ]
        lines = [json.dumps(row) for row in rows]
        lines[7:7] = ["", "{broken", "[]"]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make many parts and buckets of few rows."""
    monkeypatch.setattr(read, "CHUNK_ROWS", CHUNK)
    monkeypatch.setattr(assemble, "BUCKET", 96)


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.usefixtures("small")
def test_the_bytes_do_not_depend_on_the_number_of_processes(folder: Path) -> None:
    for processes in (1, 2, 3):
        build(section(folder, processes), 42, folder / str(processes))
    first = contents(folder / "1")
    assert "sft/train.parquet" in first
    assert "sft/duplicates.parquet" in first
    assert contents(folder / "2") == first
    assert contents(folder / "3") == first


def test_buckets_change_no_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(section(folder, 1), 42, folder / "one")
    monkeypatch.setattr(assemble, "BUCKET", 64)
    monkeypatch.setattr("posttrain.data.tables.ROW_GROUP", 2048)
    build(section(folder, 1), 42, folder / "two")
    assert contents(folder / "one") == contents(folder / "two")


@pytest.mark.usefixtures("small")
def test_a_killed_build_goes_on_and_gives_the_same_bytes(folder: Path) -> None:
    build(section(folder, 1), 42, folder / "whole")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    kept: dict[str, tuple[int, str]] = {}
    parts = folder / "killed" / ".work" / "parts"
    for wanted in (1, 6, 14):  # kill it when so many parts are there
        process = subprocess.Popen([sys.executable, str(script), str(folder)], env=environment())
        while process.poll() is None and len(list(parts.glob("*/*/part.json"))) < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = {path.parent for path in parts.glob("*/*/part.json")}
        assert len(done) >= wanted
        now = {name: state for name, state in snapshot(parts).items() if (parts / name).parent in done}
        assert {name: now[name] for name in kept} == kept  # what was finished before was not touched
        kept = now
    assert subprocess.run([sys.executable, str(script), str(folder)], env=environment(), check=True)
    assert contents(folder / "killed") == contents(folder / "whole")
    assert not (folder / "killed" / ".work").exists()


@pytest.mark.usefixtures("small")
def test_a_part_whose_mark_is_damaged_is_made_anew(folder: Path) -> None:
    options = entry_options({"source": "magpie", "path": "builtin:samples/magpie.jsonl"})
    task = Task("sft", 0, 0, options, next(read.read_source(options).chunks), folder / "part")
    worker = Worker(section(folder, num_proc=1), None, [])
    counts = worker.build(task)
    whole = {path.name: path.read_bytes() for path in (folder / "part").iterdir()}
    assert counts.kept
    for damaged in ("", "{", "[]", '{"lines": 3}'):
        (folder / "part/part.json").write_text(damaged)
        assert finished(folder / "part") is None
        assert worker.build(task) == counts
        assert {path.name: path.read_bytes() for path in (folder / "part").iterdir()} == whole


def test_workers_end_with_a_killed_parent(folder: Path) -> None:
    code = """
import os, sys, time
from posttrain.parallel import ordered
from tests.data.test_parts import tell_and_sleep
if __name__ == "__main__":
    list(ordered([sys.argv[1]] * 4, tell_and_sleep, 2))
"""
    script = folder / "parent.py"
    script.write_text(code)
    note = folder / "pids"
    note.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(note)], env=environment())
    while len(list(note.iterdir())) < 2:
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    workers = [int(path.name) for path in note.iterdir()]
    until = time.monotonic() + 10
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < until, "a worker outlived its parent"
        time.sleep(0.05)


def tell_and_sleep(folder: str) -> None:
    import os

    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


def _alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.usefixtures("small")
def test_a_source_that_breaks_off_in_a_worker_is_reported_with_the_others(folder: Path) -> None:
    import gzip

    whole = gzip.compress((folder / "many.jsonl").read_bytes())
    (folder / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "no-oasst.jsonl").write_text('{"a": 1}\n')
    data = Data(
        sft=[
            {"source": "generic", "path": str(folder / "cut.jsonl.gz")},
            {"source": "generic", "path": str(folder / "more.jsonl")},
            {"source": "oasst", "path": str(folder / "no-oasst.jsonl")},
        ],
        num_proc=2,
    )
    with pytest.raises(UserError) as error:
        build(data, 42, folder / "out")
    first, second = error.value.problems
    assert first.startswith(f"data.sft.0.path: {folder / 'cut.jsonl.gz'}: is not a whole gzip file")
    assert second.startswith("data.sft.2.path: ")
    assert not (folder / "out").exists()
