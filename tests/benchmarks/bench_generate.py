"""How many requests a second generation gets out of a server that could answer 1,280, with all answers kept durably.

A fake server in a process of its own answers after 50 ms, and 64 requests are out at once. Rows go through a rollout
into parts, each answer into the store first. Measured against datatrove's InferenceRunner with checkpoints, with as
many at once against the same server, where datatrove is installed. It commits each answer by itself and waits for the
disk every time; with `--folder` on a file system in memory the comparison is one without the disk.

    python tests/benchmarks/bench_generate.py
    python tests/benchmarks/bench_generate.py --rows 100000 --no-peer    # and whether memory stays flat
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.data.generate.client import Client
from posttrain.data.generate.endpoint import Endpoint
from posttrain.data.generate.parts import PART_ROWS
from posttrain.data.generate.requests import Asker, Request, seed_of
from posttrain.data.generate.rows import InputRow, Outcome
from posttrain.data.generate.run import run_rows
from posttrain.data.generate.store import Store
from posttrain.data.generate.throttle import Throttle
from posttrain.recipe.schema_generate import Sampling, Teacher

AT_ONCE = 64
DELAY = 0.05  # seconds
LIMIT = AT_ONCE / DELAY
ROWS_AT_ONCE = 2 * AT_ONCE  # some rows wait for their answer's commit while the next ones are asked
EARLY = 10_000  # rows after which the memory is looked at first
SERVER = Path(__file__).parents[1] / "data" / "generate" / "fake_server.py"


def prompt(number: int) -> str:
    """Return the user turn of a row: some hundred words, as of a real instruction."""
    return f"Question {number}: " + "what does the record say of this, and why? " * 12


def rows(count: int) -> Iterator[InputRow]:
    """Make the input."""
    for number in range(count):
        message = {"role": "user", "content": prompt(number)}
        yield InputRow(number=number, id=f"row-{number}", messages=[message], language="en")


async def rollout(row: InputRow, asker: Asker) -> Outcome:
    """Answer the row's last turn."""
    request = Request(messages=tuple(row.messages), sampling=Sampling(), seed=seed_of(42, row.id, "respond"))
    answer = await asker.ask(request)
    return Outcome(messages=[*row.messages, {"role": "assistant", "content": answer.text}])


async def ours(url: str, folder: Path, count: int) -> None:
    """Run all rows through, and check that each had its answer."""
    with Store(folder / "answers.sqlite") as store:
        endpoint = Endpoint(Teacher(model="m", base_url=url))
        client = Client(endpoint, store, teacher_key=("m", None), throttles={"teacher": Throttle(AT_ONCE)})
        summary = await run_rows(rows(count), rollout, client, folder / "rows", total=count, concurrency=ROWS_AT_ONCE)
        await client.close()
        assert (summary.rows, summary.failed, len(store)) == (count, 0, count)


def theirs(url: str, folder: Path, count: int) -> None:
    """Run as many documents through datatrove's runner, with checkpoints."""
    from datatrove.data import Document
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter
    from loguru import logger

    logger.remove()

    async def ask(document: Document, generate: Any) -> Any:
        message = {"role": "user", "content": document.text}
        return await generate({"messages": [message], "temperature": 0.7, "max_tokens": 4096})

    runner = InferenceRunner(
        ask,
        InferenceConfig(
            server_type="endpoint",
            model_name_or_path="m",
            endpoint_url=url.removesuffix("/v1"),
            max_concurrent_generations=AT_ONCE,
            max_concurrent_documents=ROWS_AT_ONCE,
        ),
        JsonlWriter(str(folder / "out"), output_filename="${rank}_${chunk_index}.jsonl", compression=None),
        checkpoints_local_dir=str(folder / "checkpoints"),
        records_per_chunk=2048,
    )
    runner.run((Document(text=prompt(number), id=f"row-{number}") for number in range(count)), 0, 1)
    written = sum(len(path.read_text().splitlines()) for path in (folder / "out").glob("*.jsonl"))
    assert written == count, f"datatrove wrote {written} of {count}"


class Memory(threading.Thread):
    """Looks at the resident memory of this process: once after the first rows, and at the most of what follows."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.early = 0
        self.most = 0
        self._folder = folder
        self._done = threading.Event()

    def run(self) -> None:
        """Look until told to stop."""
        while not self._done.wait(0.25):
            self.most = max(self.most, resident())
            if not self.early and len(list((self._folder / "rows").glob("part-*.parquet"))) * PART_ROWS >= EARLY:
                self.early = resident()

    def stop(self) -> None:
        """Stop looking."""
        self._done.set()
        self.join()


def resident() -> int:
    """Return this process's resident memory, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--no-peer", action="store_true", help="leave datatrove out")
    parser.add_argument(
        "--folder",
        type=Path,
        help="in which to make a folder that is removed at the end; by default that for temporary files",
    )
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-generate-", dir=options.folder))
    print(f"{options.rows:,} rows; load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    command = [sys.executable, str(SERVER), "--delay", str(DELAY)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        memory = Memory(folder)
        memory.start()
        clock = time.perf_counter()
        asyncio.run(ours(url, folder, options.rows))
        value = options.rows / (time.perf_counter() - clock)
        memory.stop()
        print(f"posttrain: {value:,.0f} requests/s, {value / LIMIT:.2f} of the limit")
        peer = None
        if not options.no_peer and importlib.util.find_spec("datatrove") is not None:
            count = min(options.rows, EARLY)
            clock = time.perf_counter()
            theirs(url, folder, count)
            peer = count / (time.perf_counter() - clock)
            print(f"datatrove: {peer:,.0f} requests/s, {peer / LIMIT:.2f} of the limit")
    finally:
        server.kill()
        server.wait()
    shutil.rmtree(folder)
    print(
        json.dumps(
            {
                "name": "generate",
                "value": round(value, 1),
                "unit": "requests/s",
                "limit": LIMIT,
                "ratio_to_limit": round(value / LIMIT, 3),
                "peer": None if peer is None else round(peer, 1),
                "ratio": None if peer is None else round(value / peer, 2),
                "rows": options.rows,
                "memory_early_mb": round(memory.early / 1e6, 1) or None,  # of more rows than these only
                "memory_most_mb": round(memory.most / 1e6, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
