"""A real server and a real, small model: `transformers serve` writes, rates and survives a kill; `data` makes a set.

Needs `POSTTRAIN_SMOLLM2`, the folder of SmolLM2-135M-Instruct, the extra `serve` and the folder of real rows. On two
cores it takes about ten minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli import main
from tests.helpers import environment

pytestmark = pytest.mark.slow
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

RECIPE = """
name: served
output_dir: {out}
model: {{base: {model}, dtype: float32, chat_template: chatml}}
teacher: {{model: {model}, base_url: {url}, max_concurrency: 4, timeout: 300}}
generate:
  - rollout: magpie
    name: magpie
    language: en
    rows: 30
    turns: 2
    instruction: {{temperature: 1.0, max_tokens: 64, stop: ["\\n"]}}
    sampling: {{temperature: 0.0, max_tokens: 64}}
    keep_truncated: true
  - rollout: respond
    name: answers
    rows_from: prompts
    sampling: {{temperature: 0.7, max_tokens: 64}}
    keep_truncated: true
  - {{rollout: rate, name: rated, rows_from: answers, retries: 1, sampling: {{temperature: 0.0, max_tokens: 48}}}}
data:
  sft:
    - {{source: generated, path: magpie, language: en, skip: [truncation]}}
    - {{source: generated, path: rated, skip: [truncation]}}
  filters: {{markup: {{}}, repetition: {{}}, language: {{}}}}
  duplicates: {{near: {{}}}}
  validation: {{fraction: 0.1, max_rows: 4}}
sft: {{max_length: 1024}}
"""
PROMPTS = 15  # of each language


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the model that the server samples from: it heeds a temperature only where its own settings sample."""
    given = os.environ.get("POSTTRAIN_SMOLLM2")
    if given is None or not Path(given).is_dir():
        pytest.skip("set POSTTRAIN_SMOLLM2 to the folder of SmolLM2-135M-Instruct")
    folder = tmp_path_factory.mktemp("model") / "smollm2"
    folder.mkdir()
    for path in Path(given).iterdir():
        (folder / path.name).symlink_to(path.resolve())
    settings = json.loads((Path(given) / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").write_text(json.dumps({**settings, "do_sample": True}))
    return folder


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model)]
    command += ["--device", "cpu", "--dtype", "float32", "--port", str(port)]
    log = (tmp_path_factory.mktemp("server") / "log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            assert process.poll() is None, Path(log.name).read_text()[-2000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def prompts(real_data: Path, path: Path) -> None:
    """Write real first prompts of OASST, in English and Finnish, as conversations whose answers are to be replaced."""
    rows = []
    for language in ("en", "fi"):
        lines = (real_data / f"oasst1-{language}-messages.jsonl").read_text(encoding="utf-8").splitlines()
        messages = [json.loads(line) for line in lines]
        first = [each["text"] for each in messages if each["role"] == "prompter" and each["parent_id"] is None]
        for text in [text for text in first if len(text) < 400][:PROMPTS]:
            turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "An answer to replace."}]
            rows.append({"messages": turns, "language": language, "license": "Apache-2.0"})
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert len(rows) == 2 * PROMPTS


def rows(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    parts = sorted(folder.glob("part-*.parquet"))
    return [row for part in parts for row in pyarrow.parquet.read_table(part).to_pylist()]


def test_a_real_server_writes_a_set(model: Path, server: str, real_data: Path, tmp_path: Path) -> None:
    recipe, source = tmp_path / "served.yaml", tmp_path / "prompts.jsonl"
    prompts(real_data, source)
    text = RECIPE.format(out=tmp_path / "out", model=model, url=server)
    recipe.write_text(text.replace("rows_from: prompts", f"source: {{source: generic, path: {source}}}"))
    command = [sys.executable, "-m", "posttrain", "generate", str(recipe)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    store = tmp_path / "out" / "answers" / "answers.sqlite-wal"
    while process.poll() is None and not (store.exists() and store.stat().st_size > 60_000):
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert main(["data", str(recipe)]) == 0
    generated = tmp_path / "out" / "generated"
    magpie, answers, rated = (rows(generated / name) for name in ("magpie", "answers", "rated"))
    assert [row["number"] for row in magpie] == list(range(30))
    assert [row["number"] for row in rated] == [row["number"] for row in answers] == list(range(2 * PROMPTS))
    assert sum(row["failed"] is None for row in magpie) >= 15
    assert sum(row["failed"] is None for row in answers) >= 25
    for row in magpie:
        assert row["failed"] is not None or len(row["messages"]) == 4
    if keep := os.environ.get("POSTTRAIN_KEEP"):
        shutil.copytree(tmp_path / "out", keep)
    summary = json.loads((tmp_path / "out" / "data" / "summary.json").read_text())
    assert summary["sets"]["sft"]["train"] >= 20
