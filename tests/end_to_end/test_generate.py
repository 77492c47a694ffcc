"""The stage `generate` from the command line: a server, a kill, a second run, and its rows through `data`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli import main
from tests.data.generate.fake_server import FakeServer
from tests.helpers import environment

RECIPE = """
name: written
output_dir: {out}
model: {{base: {checkpoint}, chat_template: tokenizer}}
teacher:
  model: teacher-70b
  tokenizer: {checkpoint}
  base_url: {url}
  max_concurrency: 8
  timeout: 20
generate:
  - {{rollout: magpie, name: magpie, rows: 40, turns: 2, language: en}}
  - rollout: respond
    name: answers
    source: {{source: generic, path: "builtin:samples/messages.jsonl"}}
    max_rows: 60
  - {{rollout: rate, name: rated, rows_from: answers, retries: 1}}
data:
  sft:
    - {{source: generated, path: magpie, language: en}}
    - {{source: generated, path: rated, name: answered}}
  validation: {{fraction: 0.1, max_rows: 5}}
sft: {{max_length: 256}}
"""


def write_recipe(folder: Path, checkpoint: Path, url: str, out: str = "out") -> Path:
    path = folder / f"{out}.yaml"
    path.write_text(RECIPE.format(out=folder / out, checkpoint=checkpoint, url=url))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def rows(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    parts = sorted(folder.glob("part-*.parquet"))
    return [row for part in parts for row in pyarrow.parquet.read_table(part).to_pylist()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The output of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("written")
    with FakeServer() as server:
        assert main(["data", str(write_recipe(folder, checkpoint, server.url))]) == 0
    return folder / "out"


def test_every_row_is_there_once_and_goes_into_the_set(written: Path) -> None:
    magpie, answers, rated = (rows(written / "generated" / name) for name in ("magpie", "answers", "rated"))
    assert [row["number"] for row in magpie] == list(range(40))
    assert [row["id"] for row in answers] == [row["id"] for row in rated]
    assert len({row["id"] for row in answers}) == len(answers) > 30
    turns = [[message["role"] for message in row["messages"]] for row in magpie]
    assert turns == [["user", "assistant", "user", "assistant"]] * 40
    # What this server says is no rating, and none is made up.
    assert {json.loads(row["meta"])["generated"]["quality"] for row in rated} == {None}
    summary = json.loads((written / "data" / "summary.json").read_text())
    sources = {source["name"]: source for source in summary["sets"]["sft"]["sources"]}
    assert sources["magpie"]["train"] + sources["magpie"]["validation"] == 40
    assert sources["answered"]["read"] == len(rated)


def test_a_second_run_asks_nothing_and_an_outage_does_not_matter(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written.parent / "out.yaml"  # its server is gone
    capsys.readouterr()
    assert main(["generate", str(recipe)]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_another_filter_asks_nothing_and_another_prompt_asks_anew(
    written: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(written, tmp_path / "out")
    with FakeServer() as server:
        recipe = str(write_recipe(tmp_path, checkpoint, server.url))
        assert main(["data", recipe, "data.filters={repetition: {}}", "--force", "data"]) == 0
        assert not server.asked
        # Another number of rows is another stage, whose answers are nearly all there.
        assert main(["generate", recipe, "generate.1.max_rows=59", "--force", "generate"]) == 0
        assert sum(server.asked.values()) <= 1  # whether the judge enforces a schema
        assert main(["generate", recipe, "generate.1.system=Be brief.", "--force", "generate"]) == 0
        assert len(server.asked) > 30


def test_a_killed_run_goes_on_and_gives_the_same_bytes(written: Path, checkpoint: Path, tmp_path: Path) -> None:
    with FakeServer(delay=0.03) as server:
        recipe = write_recipe(tmp_path, checkpoint, server.url)
        command = [sys.executable, "-m", "posttrain", "generate", str(recipe)]
        for number in (signal.SIGKILL, signal.SIGTERM):
            before = sum(server.asked.values())
            process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            while sum(server.asked.values()) < before + 50 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
            if number == signal.SIGTERM:
                assert process.returncode == 0, said.decode()
                assert "the same command goes on from there" in said.decode()
        assert main(["generate", str(recipe)]) == 0
        # Each process looks once whether the server heeds a schema and adds a BOS, by requests of few tokens.
        rows_of = [body for body in server.bodies if body["max_tokens"] > 1 and "Finland" not in json.dumps(body)]
        bodies = [json.dumps(body, sort_keys=True) for body in rows_of]
        assert len(bodies) > 300
        # 8 were in flight when it was killed, and as many answers may have waited to be written.
        assert len(bodies) - len(set(bodies)) <= 16
    assert files(tmp_path / "out" / "generated") == files(written / "generated")


def test_what_is_wrong_is_told_before_anything_is_asked(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(write_recipe(tmp_path, checkpoint, "http://127.0.0.1:9/v1"))
    wrong = ["generate.0.turns=0", "generate.1.best_of=judge", "generate.2.rows_from=answrs", "data.sft.0.path=magpi"]
    assert main(["generate", recipe, *wrong]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[3] for line in said if "generate." in line or "data." in line]
    assert len(said) == 4
    assert any("did you mean answers?" in line for line in said)
    assert any("did you mean magpie?" in line for line in said)
    assert main(["generate", recipe]) == 2
    assert "start the server, or correct teacher.base_url" in capsys.readouterr().err
    assert not (tmp_path / "out" / "generated").exists()


def test_plan_estimates_from_a_probe(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer() as server:
        recipe = str(write_recipe(tmp_path, checkpoint, server.url))
        assert main(["plan", recipe, "--probe", "5", "--gpus", "8"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    named = {line[0]: line[1:] for line in lines if line}
    assert named["magpie"][:2] == ["40", "160"]  # rows, requests: four a row
    assert named["answers"][:2] == ["60", "60"]
    assert named["rated"][0] == "60"
    assert not (tmp_path / "out").exists()


def test_a_model_in_this_process_writes_the_same_in_batches_of_any_size(checkpoint: Path, tmp_path: Path) -> None:
    recipe = str(write_recipe(tmp_path, checkpoint, "http://127.0.0.1:9/v1"))
    changes = [
        "teacher.engine=local",
        f"teacher.model={checkpoint}",
        "teacher.dtype=float32",
        "generate.0.rows=4",
        "generate.0.keep_truncated=true",
        "generate.0.sampling={max_tokens: 8}",
        "generate.1.max_rows=5",
        "generate.1.keep_truncated=true",
        "generate.1.sampling={max_tokens: 8}",
        "generate.2.sampling={max_tokens: 4}",
        "generate.0.instruction={max_tokens: 24}",
    ]
    found = []
    for size in (1, 4):
        out = tmp_path / str(size)
        assert main(["generate", recipe, *changes, f"teacher.batch_size={size}", f"output_dir={out}"]) == 0
        found.append([rows(out / "generated" / name) for name in ("magpie", "answers", "rated")])
    assert found[0] == found[1]
    magpie, answers, rated = found[0]
    assert (len(magpie), len(answers), len(rated)) == (4, 5, 5)
    assert all(row["failed"] is None or row["messages"] is None for row in (*magpie, *answers))
    assert sum(row["failed"] is None for row in answers) >= 3
