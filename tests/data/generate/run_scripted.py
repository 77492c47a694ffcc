"""A run of scripted answers as a process: `python -m tests.data.generate.run_scripted FOLDER ...`, to be killed."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from posttrain.data.generate.requests import Asker
from posttrain.data.generate.rows import InputRow, Outcome
from posttrain.data.generate.run import run_rows
from posttrain.data.generate.stop import stopping_on_signals
from posttrain.errors import Interrupted
from tests.data.generate.scripted import Scripted, at_random, respond, rows

PART = 16


async def answer_at_once(row: InputRow, asker: Asker) -> Outcome:
    return Outcome(messages=[*row.messages, {"role": "assistant", "content": row.messages[0]["content"]}])


def memory(folder: Path) -> None:
    """Print by how many bytes the most memory grows from 10,000 rows to 100,000, 4 kB each."""
    asker = Scripted()
    for name, count in (("few", 10_000), ("many", 100_000)):
        before = _peak()
        asyncio.run(run_rows(_long_rows(count), answer_at_once, asker, folder / name, concurrency=64))
    print(_peak() - before)


def _long_rows(count: int) -> Iterator[InputRow]:
    return rows(count, long=400)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=0.0)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    if not options.rows:
        memory(options.folder)
        return
    asker = Scripted(at_random(options.seed, options.longest), options.log)
    try:
        with stopping_on_signals() as stop:
            running = run_rows(
                rows(options.rows),
                respond,
                asker,
                options.folder,
                concurrency=options.concurrency,
                part_rows=PART,
                stop=stop,
            )
            asyncio.run(running)
    except Interrupted as error:
        print(error, file=sys.stderr)
        raise SystemExit(128 + error.signal) from None


if __name__ == "__main__":
    main()
