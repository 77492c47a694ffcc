"""Answers are there after a kill, for one process, and a damaged file is said to be one."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posttrain.data.generate.requests import Answer
from posttrain.data.generate.store import Store
from posttrain.errors import UserError

WRITES = """
import asyncio, sys
from posttrain.data.generate.requests import Answer
from posttrain.data.generate.store import Store

async def one(store, number):
    await store.put(number.to_bytes(16, "big"), Answer(text=f"text {number} " + "x" * 300, finish_reason="stop"))
    print(number, flush=True)

async def main():
    store = Store(sys.argv[1])
    number = 0
    while True:
        await asyncio.gather(*(one(store, n) for n in range(number, number + 50)))
        number += 50

asyncio.run(main())
"""


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def answer(number: int) -> Answer:
    return Answer(text=f"text {number}", finish_reason="stop", prompt_tokens=number, completion_tokens=2)


def fill(store: Store, numbers: range) -> None:
    async def run() -> None:
        await asyncio.gather(*(store.put(key(number), answer(number)) for number in numbers))

    asyncio.run(run())


def read_all(path: Path) -> None:
    with Store(path) as store:
        for number in range(2000):
            store.get(key(number))


def test_what_was_put_is_there_at_once_and_after_opening_again(tmp_path: Path) -> None:
    async def run(store: Store) -> None:
        putting = asyncio.create_task(store.put(key(1), answer(1)))
        await asyncio.sleep(0)
        assert store.get(key(1)) == answer(1)  # before its commit
        await putting
        assert store.get(key(1)) == answer(1)

    with Store(tmp_path / "deep" / "answers.sqlite") as store:
        assert store.get(key(1)) is None
        asyncio.run(run(store))
    odd = Answer(text="ä\n\x00 \ud83d 😀", finish_reason="length")  # with half a surrogate pair
    with Store(tmp_path / "deep" / "answers.sqlite") as store:
        assert store.get(key(1)) == answer(1)
        asyncio.run(store.put(key(2), odd))
        assert store.get(key(2)) == odd
        assert len(store) == 2


def test_the_first_answer_of_a_key_stays(tmp_path: Path) -> None:
    with Store(tmp_path / "a") as store:
        asyncio.run(store.put(key(1), answer(1)))
        asyncio.run(store.put(key(1), answer(2)))
        assert store.get(key(1)) == answer(1)

        async def at_once() -> None:
            await asyncio.gather(store.put(key(3), answer(3)), store.put(key(3), answer(4)))

        asyncio.run(at_once())
        assert store.get(key(3)) == answer(3)


def test_puts_at_the_same_time_share_commits(tmp_path: Path) -> None:
    with Store(tmp_path / "a") as store:
        commits = []
        store._connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        fill(store, range(2000))
        store._connection.set_trace_callback(None)
        assert len(store) == 2000
        assert 1 <= len(commits) <= 100


@pytest.mark.parametrize("delay", [0.3, 0.55, 0.8])
def test_every_resolved_put_is_there_after_a_kill(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "answers.sqlite"
    process = subprocess.Popen([sys.executable, "-c", WRITES, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    printed = [first, *process.stdout.readlines()]
    process.wait()
    numbers = [int(line) for line in printed if line.endswith("\n")]
    assert len(numbers) >= 50
    with Store(path) as store:
        for number in numbers:
            kept = store.get(key(number))
            assert kept is not None
            assert kept.text.startswith(f"text {number} x")
        fill(store, range(10**6, 10**6 + 10))  # and it can be written to
        assert len(store) >= len(numbers) + 10


def open_it(path: Path, queue: multiprocessing.Queue[str]) -> None:
    try:
        Store(path).close()
        queue.put("opened")
    except UserError as error:
        queue.put(str(error))


def test_a_second_process_and_a_second_store_are_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "a"
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[str] = context.Queue()
    with Store(path) as store:
        fill(store, range(3))
        process = context.Process(target=open_it, args=(path, queue))
        process.start()
        assert "another process is using this store" in queue.get(timeout=30)
        process.join()
        with pytest.raises(UserError, match="another process"):
            Store(path)
        assert store.get(key(2)) == answer(2)
        assert not list(tmp_path.glob("*-shm"))
    Store(path).close()


def test_other_files_and_damaged_ones_are_said_to_be(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not a database, but long enough to be read as the header of one, " * 20)
    with pytest.raises(UserError, match=r"move it\s+away"):
        Store(text)
    other = tmp_path / "other"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(UserError, match="not a store of answers"):
        Store(other)
    torn = tmp_path / "torn"
    with Store(torn) as store:
        fill(store, range(2000))
    whole = torn.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        read_all(torn)
    torn.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    with pytest.raises(UserError, match="cannot be read"):
        read_all(torn)


def test_a_full_disk_is_said_to_whoever_waits(tmp_path: Path) -> None:
    store = Store(tmp_path / "a")
    fill(store, range(10))
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count={pages + 2}")
    large = Answer(text="x" * 100_000, finish_reason="stop")
    with pytest.raises(UserError, match="make room"):
        asyncio.run(store.put(key(100), large))
    with pytest.raises(UserError, match="make room"):
        asyncio.run(store.put(key(101), answer(101)))
    store.close()
    with Store(tmp_path / "a") as store:
        assert len(store) == 10


class _Broken:
    """A connection whose disk is gone in the middle of a commit, so that not even a rollback works."""

    in_transaction = True

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.close = connection.close

    def execute(self, statement: str, values: object = ()) -> sqlite3.Cursor:
        if statement.startswith("SELECT"):
            return sqlite3.connect(":memory:").execute("SELECT 1 WHERE 0")
        raise sqlite3.OperationalError(f"disk I/O error at {statement}")


def test_whoever_waits_is_told_though_the_rollback_fails_too(tmp_path: Path) -> None:
    async def put(store: Store) -> None:
        await asyncio.wait_for(store.put(bytes(16), Answer(text="a", finish_reason="stop")), 5)

    with Store(tmp_path / "answers.sqlite") as store:
        store._connection = _Broken(store._connection)  # type: ignore[assignment]
        with pytest.raises(UserError, match="disk I/O error at BEGIN IMMEDIATE"):
            asyncio.run(put(store))
