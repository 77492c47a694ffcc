"""Tokenising with mask and packing: the tokenize stage against the preparation of TRL's `SFTTrainer`.

    python tests/benchmarks/bench_tokenize.py [--rows 20000] [--num-proc 2] [--repeat 2] [--tokenizer FOLDER]

Both get the same chats (one to three turns, English and Finnish, about 2 kB), the same tokenizer and the same ChatML
template with generation markers. Both train on the assistant's text, pack by best-fit decreasing into 4,096 tokens and
write the result to a fresh folder. TRL runs with each of `--peer-num-proc`, and its best figure counts. Neither loads a
model. They take turns, and the fastest of the repeats of each counts. The time of ours includes loading the tokenizer
and starting the processes; that of TRL does not include loading its tokenizer and its rows. Beside them the tokenizer
alone, on the same rendered texts, with threads on all cores, says how near the limit is.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from posttrain.chat import builtin_templates, render  # noqa: E402
from posttrain.recipe.schema import Data, Launch, Model, Recipe, Sft  # noqa: E402
from posttrain.stages.context import Context  # noqa: E402
from posttrain.train.dataset import load_tokens  # noqa: E402
from posttrain.train.tokenize import tokenize_sft  # noqa: E402
from posttrain.train.tokenizer import load_tokenizer, train_tokenizer  # noqa: E402
from tests.benchmarks.mixture import Writer  # noqa: E402

MAX_LENGTH = 4096
VOCABULARY = 32_000  # of the tokenizer that is trained where none is given
TEMPLATE = "chatml"


def make_rows(count: int) -> list[dict[str, Any]]:
    """Return chats of one to three turns, half of them Finnish; their lengths are spread like those of real ones."""
    source = random.Random(1)
    writers = [Writer(language, 1) for language in ("en", "fi")]
    rows = []
    for number in range(count):
        writer, turns = writers[number % 2], source.randint(1, 3)
        messages = []
        for _ in range(turns):
            messages.append({"role": "user", "content": writer.text(90 // turns)})
            messages.append({"role": "assistant", "content": writer.text(230 // turns)})
        rows.append({"id": f"{number:08}", "source": f"source-{number % 5}", "messages": messages})
    return rows


def write_rows(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write a data folder as the data stage does; the held-out set has one row."""
    import pyarrow as pa
    import pyarrow.parquet

    from posttrain.data.tables import ROW_GROUP, schema

    (folder / "sft").mkdir(parents=True)
    about = {"language": "en", "license": None, "meta": "{}"}
    for split, some in (("train", rows), ("validation", rows[:1])):
        table = pa.Table.from_pylist([row | about for row in some], schema=schema("sft"))
        path = folder / "sft" / f"{split}.parquet"
        pyarrow.parquet.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP)


def ours(data: Path, tokenizer: Path, num_proc: int, folder: Path) -> tuple[float, int, int]:
    """Run the stage; return seconds, and the blocks and tokens that came out."""
    from rich.console import Console

    model = Model(base=str(tokenizer), chat_template=TEMPLATE)
    recipe = Recipe(
        name="bench",
        model=model,
        data=Data(num_proc=num_proc),
        sft=Sft(max_length=MAX_LENGTH, packing="bfd", loss_on="assistant"),
        launch=Launch(cpu=True),
    )
    folder.mkdir()
    context = Context(
        stage="tokenize-sft",
        recipe=recipe,
        resolved={},
        folder=folder,
        inputs={"data": data},
        resume=False,
        rank=0,
        world_size=1,
        console=Console(file=io.StringIO()),
    )
    clock = time.perf_counter()
    tokenize_sft(context)
    seconds = time.perf_counter() - clock
    tokens = load_tokens(folder)
    return seconds, len(tokens.train), tokens.tally.tokens


def trls(data: Path, tokenizer: Any, num_proc: int, folder: Path) -> tuple[float, int, int]:
    """Run what `SFTTrainer` does with its training rows before it trains; figures as `ours`."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_parquet(str(data / "sft" / "train.parquet"), cache_dir=str(folder))
    rows = rows.select_columns(["messages"])
    arguments = SFTConfig(
        output_dir=str(folder / "out"),
        assistant_only_loss=True,
        packing=True,
        packing_strategy="bfd",
        max_length=MAX_LENGTH,
        dataset_num_proc=num_proc,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    # The method reads nothing else of the trainer, which could only be made with a model.
    trainer = SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss=False)
    clock = time.perf_counter()
    packed = SFTTrainer._prepare_dataset(trainer, rows, tokenizer, arguments, True, None, "train")
    seconds = time.perf_counter() - clock
    return seconds, len(packed), int(sum(map(sum, packed["seq_lengths"])))


def tokenizer_alone(rows: list[dict[str, Any]], tokenizer: Any) -> float:
    """Return the seconds that the tokenizer takes for the rendered texts, its threads on all cores."""
    text = builtin_templates()[TEMPLATE].read_text(encoding="utf-8")
    texts = [render(text, row["messages"], tokenizer.special_tokens_map).text for row in rows]
    fast = tokenizer.backend_tokenizer
    clock = time.perf_counter()
    for start in range(0, len(texts), 256):
        fast.encode_batch_fast(texts[start : start + 256], add_special_tokens=False)
    return time.perf_counter() - clock


def main() -> None:
    """Print what was measured; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--num-proc", type=int, default=2)
    parser.add_argument("--peer-num-proc", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--tokenizer", type=Path, help="a folder with ChatML's tokens; by default one is trained")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-tokenize-"))
    rows = make_rows(options.rows)
    write_rows(rows, folder / "data")
    size = sum(len(message["content"].encode()) for row in rows for message in row["messages"])
    print(f"{len(rows):,} rows, {size / len(rows):,.0f} bytes a row", flush=True)
    source = options.tokenizer
    if source is None:
        source = folder / "tokenizer"
        texts = (message["content"] for row in rows[:4000] for message in row["messages"])
        train_tokenizer(texts, VOCABULARY, TEMPLATE).save_pretrained(source)
    tokenizer = load_tokenizer(source, Model(base=str(source)))
    tokenizer.chat_template = builtin_templates()[TEMPLATE].read_text(encoding="utf-8")
    # Before TRL forks this process: from then on the tokenizer keeps to one thread.
    alone = min(tokenizer_alone(rows, tokenizer) for _ in range(options.repeat))
    write_rows(rows[:512], folder / "few")
    for number, run in enumerate((ours, trls)):  # so that what is imported once is no part of the figures
        run(folder / "few", source if run is ours else tokenizer, 1, folder / f"warm-{number}")
    measured: dict[str, tuple[float, int, int]] = {}
    for turn in range(options.repeat):
        runs = [("ours", ours, source, options.num_proc)]
        runs += [(f"TRL, dataset_num_proc={number}", trls, tokenizer, number) for number in options.peer_num_proc]
        for number, (name, run, wanted, num_proc) in enumerate(runs):
            out = folder / f"{turn}-{number}"
            result = run(folder / "data", wanted, num_proc, out)
            shutil.rmtree(out)
            print(f"{name}: {result[0]:.1f} s, {len(rows) / result[0]:,.0f} rows/s", flush=True)
            measured[name] = min(result, measured.get(name, result))
    shutil.rmtree(folder)

    mine = measured.pop("ours")
    peer = min(measured, key=lambda name: measured[name][0])
    for name, (seconds, blocks, tokens) in [("ours", mine), *measured.items()]:
        speed = f"{len(rows) / seconds:8,.0f} rows/s  {1e6 * seconds / len(rows):6,.0f} us/row"
        print(f"{name:<26} {speed}  {tokens:,} tokens in {blocks:,} blocks")
    print(f"{'the tokenizer alone':<26} {len(rows) / alone:8,.0f} rows/s  {1e6 * alone / len(rows):6,.0f} us/row")
    print(
        json.dumps(
            {
                "name": "tokenize",
                "value": round(len(rows) / mine[0], 1),
                "unit": "rows/s",
                "peer": round(len(rows) / measured[peer][0], 1),
                "ratio": round(measured[peer][0] / mine[0], 2),
                "peer_name": peer,
                "rows": len(rows),
                "share_of_tokenizer": round(alone / mine[0], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
