"""From launch to the first step: how long training takes to begin on prepared tokens, and whether more rows delay it.

    python tests/benchmarks/bench_start.py [--rows 1400000] [--few 14000] [--length 64]

Two sets of packed tokens of different size are made as the tokenize stage leaves them, with a small Llama. Then the sft
stage is timed in a process of its own, from its start to the end of its first optimiser step, on each in turn; loading
the model's weights is timed apart and taken off. The last line is JSON; `ratio` is the time with many rows over that
with few.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.helpers import MODEL, make_tokenizer, save_checkpoint  # noqa: E402

_CHILD = """
import sys, time
started = float(sys.argv[1])
import io
from pathlib import Path
from rich.console import Console
from transformers import TrainerCallback
from posttrain.recipe.schema import Launch, Model, Recipe, Sft
from posttrain.stages.context import Context
from posttrain.train import sft, trl

class FirstStep(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
        print(f"{time.time() - started - loading:.3f} {loading:.3f}")
        sys.stdout.flush()
        import os
        os._exit(0)

loading = 0.0
load, make = sft.load_model, trl.base.BuildTrainer.__init__

def timed(*args, **kwargs):
    global loading
    begun = time.time()
    model = load(*args, **kwargs)
    loading = time.time() - begun
    return model

def watched(self, *args, **kwargs):
    make(self, *args, **kwargs)
    self.add_callback(FirstStep())

sft.load_model, trl.base.BuildTrainer.__init__ = timed, watched
checkpoint, tokens, out, length = sys.argv[2:]
recipe = Recipe(
    name="bench",
    model=Model(base=checkpoint, dtype="float32", chat_template="llama-3.1"),
    sft=Sft(max_length=int(length), packing="bfd", global_batch_size=4, per_device_train_batch_size=4),
    launch=Launch(cpu=True),
)
context = Context(
    stage="sft", recipe=recipe, resolved={}, folder=Path(out), inputs={"tokenize-sft": Path(tokens)}, resume=False,
    rank=0, world_size=1, console=Console(file=io.StringIO()),
)
sft.train_sft(context)
"""


def write_tokens(folder: Path, rows: int, length: int) -> int:
    """Write a set of blocks of random ids as the tokenize stage does; return the bytes of the training set."""
    import numpy as np
    import pyarrow as pa

    from posttrain.train.dataset import COUNTS, SourceTally, Tally

    folder.mkdir()
    source = np.random.default_rng(1)

    def table(count: int) -> pa.Table:
        ids = source.integers(10, MODEL.new.vocab_size if MODEL.new else 400, count * length, dtype=np.int32)
        offsets = np.arange(count + 1, dtype=np.int32) * length
        lengths = np.full(count * 2, length // 2, dtype=np.int32)
        halves = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * 2), pa.array(lengths))
        column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids))
        return pa.table({"input_ids": column, "labels": column, "seq_lengths": halves})

    schema = table(1).schema
    for split, count in (("train", rows), ("validation", 0)):
        with pa.OSFile(str(folder / f"{split}.arrow"), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for start in range(0, count, 10_000):
                writer.write_table(table(min(10_000, count - start)))
    tally = Tally(sources={"bench": SourceTally(rows, rows, rows * length, rows * length)})
    (folder / COUNTS).write_text(json.dumps({"train": tally.to_json(), "validation": Tally().to_json()}))
    return (folder / "train.arrow").stat().st_size


def seconds_to_first_step(checkpoint: Path, tokens: Path, out: Path, length: int) -> tuple[float, float]:
    """Return the seconds from the start of a process to its first step, without and for loading the weights."""
    out.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    arguments = [str(time.time()), str(checkpoint), str(tokens), str(out), str(length)]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    first, loading = done.stdout.split()[-2:]
    return float(first), float(loading)


def main() -> None:
    """Print what was measured; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_400_000)
    parser.add_argument("--few", type=int, default=14_000)
    parser.add_argument("--length", type=int, default=64, help="tokens a block")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-start-") as temporary:
        folder = Path(temporary)
        checkpoint = save_checkpoint(make_tokenizer(), folder / "model")
        best: dict[int, float] = {}
        for rows in (options.few, options.rows):
            size = write_tokens(folder / str(rows), rows, options.length)
            print(f"{rows:,} rows of {options.length} tokens, {size / 1e6:,.0f} MB", flush=True)
        for turn in range(options.repeat):
            for rows in (options.few, options.rows):
                out = folder / f"out-{turn}-{rows}"
                first, loading = seconds_to_first_step(checkpoint, folder / str(rows), out, options.length)
                print(f"{rows:,} rows: {first:.2f} s to the first step, {loading:.2f} s for the weights", flush=True)
                best[rows] = min(first, best.get(rows, first))
    result = {
        "name": "start",
        "value": round(best[options.rows], 2),
        "unit": "s",
        "peer": round(best[options.few], 2),
        "ratio": round(best[options.rows] / best[options.few], 3),
        "peer_name": f"{options.few} rows",
        "rows": options.rows,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
