"""SFT in tokens a second: the sft stage's trainer against TRL's own `SFTTrainer`.

    python tests/benchmarks/bench_sft.py [--steps 12] [--repeat 3] [--model FOLDER] [--dtype float32] [--max-length 512]

Both train the same model from the same weights on the same rows, packed into the same blocks by best-fit decreasing,
with the same optimiser, batch and precision. TRL gets the blocks as a data set that it prepares no further, as it does
itself with packed rows. They take turns. The time of a step is from the end of the one before it, so that it holds what
a trainer does in between: collating, waiting for data, logging. Of each step the fastest of the repeats counts, because
other work on the machine only ever slows one down; the first two do not count. The share of the time in which the
training waited for its next batch is printed too, and on a GPU the model FLOPs utilisation. Without `--model` a small
Llama with random weights is made. The last line is JSON.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from posttrain.recipe.schema import Launch, Model, NewModel, Recipe, Sft  # noqa: E402

WARM_UP = 2  # steps that are not counted
SIZES = NewModel(
    vocab_size=8192,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=4,
    max_position_embeddings=4096,
)


def make_blocks(count: int, length: int, vocabulary: int) -> Any:
    """Return rows of random ids, packed by best-fit decreasing as the tokenize stage does; at least `count` blocks."""
    from datasets import Dataset

    from posttrain.train.packing import pack

    source = random.Random(1)
    rows: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    tokens = 0
    while tokens < count * length:
        size = source.randint(length // 16, length // 2)
        ids = [source.randrange(10, vocabulary) for _ in range(size)]
        prompt = size // 3
        rows["input_ids"].append(ids)
        rows["labels"].append([-100] * prompt + ids[prompt:])
        tokens += size
    return Dataset(pack(Dataset.from_dict(rows).with_format("arrow")[:], length, "bfd"))


class Clock:
    """A callback that notes when each step ended; and a wrapper of batches that notes how long they let one wait."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.waited: list[float] = [0.0]

    def callback(self) -> Any:
        """Return the callback."""
        import torch
        from transformers import TrainerCallback

        clock = self

        class Note(TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                clock.ends.append(time.perf_counter())
                clock.waited.append(0.0)

        return Note()

    def watch(self, trainer: Any) -> None:
        """Measure how long the trainer waits for the batches of each step."""
        original = trainer.get_batch_samples

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.waited[-1] += time.perf_counter() - started

        trainer.get_batch_samples = timed

    def steps(self) -> list[float]:
        """Return the seconds of each step after the warm-up."""
        ends = self.ends[WARM_UP - 1 :]
        return [later - earlier for earlier, later in itertools.pairwise(ends)]

    def share_waited(self) -> float:
        """Return the share of the time after the warm-up in which the training waited for data."""
        return sum(self.waited[WARM_UP : len(self.ends)]) / (self.ends[-1] - self.ends[WARM_UP - 1])


def run(trainer: Any) -> Clock:
    """Train, and return what the clock saw."""
    clock = Clock()
    clock.watch(trainer)
    trainer.add_callback(clock.callback())
    trainer.train()
    return clock


def ours(recipe: Recipe, model: Any, tokenizer: Any, blocks: Any, folder: Path) -> Any:
    """Return the trainer of the sft stage, with the callbacks that the stage adds."""
    import torch
    from rich.console import Console
    from transformers import PrinterCallback

    from posttrain.train.callbacks import CheckDtypes, StopOnSignal
    from posttrain.train.progress import ShowProgress
    from posttrain.train.trl import supervised_trainer

    assert recipe.sft is not None
    trainer = supervised_trainer(
        recipe.sft,
        recipe,
        folder=folder,
        world_size=1,
        eval_on_start=False,
        model=model,
        train_dataset=blocks,
        eval_dataset=None,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    console = Console(quiet=True)
    for callback in (StopOnSignal(), ShowProgress("sft", console), CheckDtypes(torch.float32, None, lambda _: None)):
        trainer.add_callback(callback)
    return trainer


def trls(recipe: Recipe, model: Any, tokenizer: Any, blocks: Any, folder: Path) -> Any:
    """Return TRL's trainer with the same settings."""
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    settings = recipe.sft
    assert settings is not None
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.global_batch_size // settings.per_device_train_batch_size,
        max_length=settings.max_length,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        max_grad_norm=settings.max_grad_norm,
        optim=settings.optim,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=recipe.model.dtype == "bfloat16",
        packing=True,
        packing_strategy="bfd",
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=settings.logging_steps,
        save_strategy="no",
        use_cpu=recipe.launch.cpu,
        disable_tqdm=True,
        seed=recipe.seed,
        report_to=[],
    )
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=blocks, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    return trainer


def main() -> None:
    """Print what was measured; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=4, help="at least 2")
    parser.add_argument("--model", type=Path, help="a folder with a model and its tokenizer")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2, help="blocks a micro-batch")
    parser.add_argument("--accumulate", type=int, default=2, help="micro-batches a step")
    options = parser.parse_args()
    import torch

    from posttrain.train.loop import quiet_libraries

    quiet_libraries()
    from posttrain.train.model import load_model, new_model
    from posttrain.train.throughput import flops_per_token, peak_flops
    from posttrain.train.tokenizer import equip, load_tokenizer, train_tokenizer

    cpu = not torch.cuda.is_available()
    settings = Sft(
        max_length=options.max_length,
        packing="bfd",
        global_batch_size=options.batch * options.accumulate,
        per_device_train_batch_size=options.batch,
        max_steps=options.steps,
        logging_steps=5,
        save_steps=10**6,
        learning_rate=1e-4,
    )
    section = Model(
        base=str(options.model) if options.model else None,
        new=None if options.model else SIZES,
        dtype=options.dtype,
        chat_template="tokenizer" if options.model else "llama-3.1",
    )
    recipe = Recipe(name="bench", model=section, sft=settings, launch=Launch(cpu=cpu))
    if options.model:
        tokenizer = load_tokenizer(options.model, section)
        first = load_model(options.model, section, dtype="float32")
    else:
        tokenizer = train_tokenizer(["A boat on a lake.", "Vene on järvellä."], 400, "llama-3.1")
        first = new_model(SIZES, tokenizer, seed=1)
        first.config.use_cache = False
    equip(tokenizer, section)
    blocks = make_blocks(options.steps * settings.global_batch_size + 4, options.max_length, len(tokenizer))
    tokens = sum(map(sum, blocks["seq_lengths"])) / len(blocks) * settings.global_batch_size  # a step
    runs = {"ours": ours, "TRL": trls}
    measured: dict[str, list[Clock]] = {name: [] for name in runs}
    with tempfile.TemporaryDirectory(prefix="bench-sft-") as temporary:
        for turn in range(options.repeat):
            for name in sorted(runs, reverse=bool(turn % 2)):  # so that neither always comes first
                model = copy.deepcopy(first)
                trainer = runs[name](recipe, model, tokenizer, blocks, Path(temporary) / f"{turn}-{name}")
                clock = run(trainer)
                measured[name].append(clock)
                speed = tokens / statistics.mean(clock.steps())
                waited = clock.share_waited()
                print(f"{name:<5} {speed:10,.0f} tokens/s, {waited:.2%} of the time waiting for data", flush=True)
                del trainer, model
    fastest = {name: map(min, *(clock.steps() for clock in clocks)) for name, clocks in measured.items()}
    value, peer = (tokens / statistics.mean(fastest[name]) for name in ("ours", "TRL"))
    result = {
        "name": "sft",
        "value": round(value, 1),
        "unit": "tokens/s",
        "peer": round(peer, 1),
        "ratio": round(value / peer, 3),
        "peer_name": "TRL SFTTrainer",
        "waiting_for_data": round(statistics.median(clock.share_waited() for clock in measured["ours"]), 5),
        "parameters": first.num_parameters(),
        "dtype": options.dtype,
        "tokens_a_step": round(tokens),
        "device": "cpu" if cpu else torch.cuda.get_device_name(),
    }
    if not cpu and (peak := peak_flops(torch.cuda.get_device_name())) is not None:
        result["mfu"] = round(
            value * flops_per_token(first.num_parameters(), first.config, options.max_length) / peak, 4
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
