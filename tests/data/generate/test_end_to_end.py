"""Rows, run, client, store and a server that fails in every way: each row once, in order, whatever is killed."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from posttrain.data.generate.client import Client
from posttrain.data.generate.endpoint import Endpoint
from posttrain.data.generate.inputs import input_rows
from posttrain.data.generate.parts import part_files, read_rows
from posttrain.data.generate.requests import Asker, Request
from posttrain.data.generate.rows import InputRow, Outcome
from posttrain.data.generate.run import run_rows
from posttrain.data.generate.stop import Stop
from posttrain.data.generate.store import Store
from posttrain.data.generate.throttle import Throttle
from posttrain.errors import Interrupted
from posttrain.recipe.schema_generate import Respond, Sampling, Teacher
from tests.data.conversions import messages
from tests.data.generate.fake_server import FAULTS, FakeServer, answer_text
from tests.data.generate.scripted import files
from tests.helpers import environment

ROWS = 2000
AT_ONCE = 64


def write_rows(path: Path, hopeless: int | None = None) -> Path:
    """Write prompts with answers; every `hopeless` one is a prompt that the server never answers."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(ROWS):
            never = hopeless is not None and number % hopeless == 0
            stream.write(json.dumps({"messages": messages(prompt_of(number, never), "old")}) + "\n")
    return path


def prompt_of(number: int, never: bool = False) -> str:
    return f"{'never' if never else 'row'} {number}"


async def answer(row: InputRow, asker: Asker) -> Outcome:
    asked = Request(messages=(row.messages[0],), sampling=Sampling(max_tokens=8), seed=row.number)
    answered = await asker.ask(asked)
    return Outcome(
        messages=[row.messages[0], {"role": "assistant", "content": answered.text}],
        meta={"finish_reason": answered.finish_reason, "completion_tokens": answered.completion_tokens},
    )


async def run(
    path: Path, url: str, folder: Path, store: Path, stop: Stop | None = None, timeout: float = 0.5
) -> Client:
    teacher = Teacher(model="m", base_url=url, timeout=timeout)
    entry = Respond(rollout="respond", name="out", source={"source": "generic", "path": str(path)})
    with Store(store) as answers:
        client = Client(
            Endpoint(teacher, {}),
            answers,
            teacher_key=("m", None),
            throttles={"teacher": Throttle(AT_ONCE)},
            max_attempts=4,
            back_off=(0.01, 0.05),
        )
        try:
            rows = input_rows(entry, {})
            await run_rows(rows, answer, client, folder, concurrency=AT_ONCE, part_rows=128, stop=stop)
        finally:
            await client.close()
    return client


def test_every_row_is_answered_or_a_tombstone(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", hopeless=50)
    with FakeServer(faults=FAULTS, failures=1, spread=0.02, slow=0.7) as server:
        client = asyncio.run(run(path, server.url, tmp_path / "out", tmp_path / "answers"))
    rows = list(read_rows(tmp_path / "out"))
    assert [row["number"] for row in rows] == list(range(ROWS))
    assert len({row["id"] for row in rows}) == ROWS
    for number, row in enumerate(rows):
        never = number % 50 == 0
        assert row["input"] == messages(prompt_of(number, never), "old")
        if never:
            assert row["messages"] is None
            assert row["failed"].startswith("no answer: ")
        else:
            expected = messages(prompt_of(number), answer_text(prompt_of(number), number))
            assert (row["messages"], row["failed"]) == (expected, None)
    assert set(server.answered) == {prompt_of(number) for number in range(ROWS) if number % 50}
    assert all(server.asked[prompt_of(number, True)] == 4 for number in range(0, ROWS, 50))
    assert client.stats.answers == ROWS * 49 // 50
    assert len(client.stats.retries) == 6, "the server failed in every way"
    assert sum(client.stats.retries.values()) > ROWS // 3
    done = json.loads((tmp_path / "out/done.json").read_text())
    assert (done["rows"], done["failed"], done["reasons"]) == (ROWS, 40, {"no answer": 40})


def test_a_run_killed_five_times_ends_with_the_same_bytes(tmp_path: Path) -> None:
    path, moments = write_rows(tmp_path / "rows.jsonl"), random.Random(11)
    with FakeServer(spread=0.01) as server:
        asyncio.run(run(path, server.url, tmp_path / "whole", tmp_path / "whole.sqlite"))
    with FakeServer(faults=FAULTS, failures=1, spread=0.05, slow=0.7) as server:
        killed = 0
        for turn in range(5):
            process = start(path, server.url, tmp_path)
            goal = ROWS * (turn + 1) // 7 + moments.randint(0, 150)
            while server.answered.total() < goal and process.poll() is None:
                time.sleep(0.002)
            killed += process.poll() is None
            process.kill()
            process.communicate()
        assert killed == 5
        kept = len(part_files(tmp_path / "killed")) * 128
        assert kept > 128
        before = Counter(server.asked)
        process = start(path, server.url, tmp_path)
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    repeated = {prompt: count for prompt, count in server.answered.items() if count > 1}
    assert set(server.answered) == {prompt_of(number) for number in range(ROWS)}
    # Only what was under way at a kill was answered and lost with the process.
    assert sum(repeated.values()) - len(repeated) <= 5 * AT_ONCE
    assert not any(server.asked[prompt_of(number)] > before[prompt_of(number)] for number in range(kept))


def test_a_stopped_run_loses_no_answer(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    stop = Stop()

    async def stopped(url: str) -> None:
        async def watch() -> None:
            while server.answered.total() < ROWS // 2:
                await asyncio.sleep(0.001)
            stop.request(15)

        watching = asyncio.create_task(watch())
        with pytest.raises(Interrupted):
            await run(path, url, tmp_path / "out", tmp_path / "answers", stop, timeout=60)
        await watching

    with FakeServer(spread=0.05) as server:
        asyncio.run(stopped(server.url))
        with Store(tmp_path / "answers") as store:
            assert ROWS // 2 <= len(store) == server.asked.total() < ROWS
        asyncio.run(run(path, server.url, tmp_path / "out", tmp_path / "answers", timeout=60))
    assert server.asked == Counter(prompt_of(number) for number in range(ROWS))


def start(path: Path, url: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.data.generate.test_end_to_end", str(path), url, str(folder)]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)


def main() -> None:
    """Run in a process that can be killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    asyncio.run(run(options.rows, options.url, options.folder / "killed", options.folder / "killed.sqlite"))


if __name__ == "__main__":
    main()
