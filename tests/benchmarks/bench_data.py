"""Rows a second of the whole chain from JSON lines to the shuffled sets, and the most memory it takes.

    python tests/benchmarks/bench_data.py [--rows 200000] [--num-proc 2] [--folder DIR]

All steps are on: markup, truncation, lengths, language, repetition, refusals, vendor names, exact and near duplicates,
decontamination, mixing, parquet, report and card. The synthetic rows are written first, outside the measured time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from posttrain.data.build import build
from posttrain.recipe.schema import Data, Validation
from posttrain.recipe.schema_data import (
    Decontamination,
    Duplicates,
    EvalSet,
    Filters,
    LanguageFilter,
    LengthFilter,
    MarkupFilter,
    NearDuplicates,
    RefusalFilter,
    RepetitionFilter,
    TruncationFilter,
    VendorFilter,
)

if __package__:
    from tests.benchmarks.mixture import write
else:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.benchmarks.mixture import write


class Memory(threading.Thread):
    """Samples the memory of this process and those below it: the proportional share, so that nothing counts twice."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0  # bytes
        self.by_process: dict[str, int] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.5):
            found = {pid: _proportional(pid) for pid in _family()}
            if (total := sum(found.values())) > self.most:
                self.most, self.by_process = total, found

    def stop(self) -> None:
        self._over.set()
        self.join()


def _family() -> list[str]:
    import os

    found = [str(os.getpid())]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += children.read_text().split()
            except OSError:
                continue
    return found


def _proportional(pid: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def mixture(files: dict[str, Path], num_proc: int) -> Data:
    """Return the section of a recipe that builds the rows with every step."""
    path = {name: str(file) for name, file in files.items()}
    sft: list[dict[str, Any]] = [
        {"source": "generic", "name": "tulu3-en", "path": path["tulu3-en"], "language": "en", "license": "odc-by"},
        {"source": "generic", "name": "tulu3-fi", "path": path["tulu3-fi"], "language": "fi", "license": "odc-by"},
        {"source": "generic", "name": "magpie", "path": path["magpie"], "language": "en", "fraction": 0.9},
        {"source": "europarl", "path": path["europarl"], "max_rows": 200},
    ]
    return Data(
        sft=sft,
        filters=Filters(
            markup=MarkupFilter(),
            truncation=TruncationFilter(),
            length=LengthFilter(min_prompt=5, max_prompt=20000, min_response=5, max_response=20000),
            language=LanguageFilter(),
            repetition=RepetitionFilter(),
            refusal=RefusalFilter(),
            vendor=VendorFilter(),
        ),
        duplicates=Duplicates(near=NearDuplicates()),
        decontaminate=Decontamination(against=[EvalSet(path=path["eval"], name="eval")]),
        validation=Validation(fraction=0.01),
        num_proc=num_proc,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--num-proc", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder, removed at the end")
    parser.add_argument("--keep", action="store_true", help="leave the rows and the sets where they are")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="bench-data-"))
    source = folder / f"rows-{options.rows}"
    if not source.exists():
        write(source, options.rows)
    files = {path.stem: path for path in source.glob("*.jsonl")}
    size = sum(path.stat().st_size for path in files.values())
    print(f"{options.rows:,} rows, {size / 1e6:,.0f} MB, {options.num_proc} processes")
    shutil.rmtree(folder / "out", ignore_errors=True)
    memory = Memory()
    memory.start()
    clock = time.perf_counter()
    summary = build(mixture(files, options.num_proc), 42, folder / "out")
    seconds = time.perf_counter() - clock
    memory.stop()
    for each in summary.sets["sft"].sources:
        print(each.describe())
    print(f"{seconds:.1f} s; most memory {memory.most / 1e9:.2f} GB, of which this process {_most_of(memory):.2f} GB")
    if not options.keep:
        shutil.rmtree(folder)
    print(
        json.dumps(
            {
                "name": "data",
                "value": round(options.rows / seconds, 1),
                "unit": "rows/s",
                "rows": options.rows,
                "seconds": round(seconds, 1),
                "memory_gb": round(memory.most / 1e9, 2),
            }
        )
    )


def _most_of(memory: Memory) -> float:
    return max(memory.by_process.values(), default=0) / 1e9


if __name__ == "__main__":
    main()
