"""DPO in pairs a second: shared prefixes in packed rows against TRL's own `DPOTrainer`.

    python tests/benchmarks/bench_dpo.py [--batch 4] [--steps 5] [--repeat 2] [--model FOLDER] [--scale 0.5]

Both train the same model from the same weights on the same pairs, in the same steps of `--pairs` pairs, with the same
optimiser and precision, and with reference log-probabilities that were computed before and are not timed: what is
measured is forward, backward and step of the policy. Each run is a process of its own, the two in turns. The time of a
step is from the end of the one before it; of each step the fastest of the repeats counts, because other work on the
machine only ever slows one down, and the first step does not count. Memory is the growth of the process from before the
training to its peak; on a GPU it is that of its allocator.

Lengths are drawn from log-normal distributions: contexts of one to several turns with a median of 420 tokens and a mean
near 700, and two responses with a median of 320 that differ from each other by a factor of 1.3 as a rule. `--scale`
shortens all of them. Without `--model` a small Llama with random weights is made, whose LM head has about as large a
part in the work as that of SmolLM2 135M. The last line is JSON.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from posttrain.recipe.schema import Dpo, Launch, Model, NewModel, Recipe  # noqa: E402

WARM_UP = 1  # steps that are not counted
SIZES = NewModel(
    vocab_size=8192,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=4,
    max_position_embeddings=8192,
)


def make_pairs(count: int, scale: float, longest: int, vocabulary: int) -> Any:
    """Return pairs of random ids, their lengths spread as the module says; longer pairs than `longest` are left out."""
    from datasets import Dataset

    source = random.Random(1)
    rows: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}

    def ids(length: float) -> list[int]:
        return [source.randrange(10, vocabulary) for _ in range(max(4, round(length * scale)))]

    while len(rows["prompt_ids"]) < count:
        prompt = ids(source.lognormvariate(math.log(420), 1.0))
        middle = source.lognormvariate(math.log(320), 0.6)
        chosen, rejected = (ids(middle * source.lognormvariate(0, 0.25)) for _ in range(2))
        if len(prompt) + max(len(chosen), len(rejected)) <= longest:
            for name, values in zip(rows, (prompt, chosen, rejected), strict=True):
                rows[name].append(values)
    return Dataset.from_dict(rows)


def ours(recipe: Recipe, model: Any, tokenizer: Any, pairs: Any, folder: Path) -> Any:
    """Return the trainer of the dpo stage, on pairs that the ref-logps stage's scorer has scored."""
    from datasets import Dataset
    from transformers import PrinterCallback

    from posttrain.train.ref_store import CHOSEN, REJECTED
    from posttrain.train.shared_prefix import choose_attention, shares_prefix, tokens_per_row
    from posttrain.train.trl import ReferenceScorer, preference_trainer

    assert recipe.dpo is not None
    shared, why = shares_prefix(recipe.dpo, model)
    assert shared, why
    choose_attention(model, recipe.model, model.device)
    scorer = ReferenceScorer(copy.deepcopy(model), recipe.dpo, recipe, pad=int(tokenizer.pad_token_id), packed=True)
    values = [scorer.score([pair])[0] for pair in pairs]
    columns = {CHOSEN: [float(value[0]) for value in values], REJECTED: [float(value[1]) for value in values]}
    trainer = preference_trainer(
        recipe.dpo,
        recipe,
        folder=folder,
        world_size=1,
        eval_on_start=False,
        packed=tokens_per_row(recipe.dpo, recipe),
        model=model,
        ref_model=None,
        train_dataset=Dataset.from_dict(pairs.to_dict() | columns),
        eval_dataset=None,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trls(recipe: Recipe, model: Any, tokenizer: Any, pairs: Any, folder: Path) -> Any:
    """Return TRL's trainer with the same settings, the reference computed beforehand by itself."""
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    settings = recipe.dpo
    assert settings is not None
    arguments = DPOConfig(
        output_dir=str(folder),
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.global_batch_size // settings.per_device_train_batch_size,
        max_length=settings.max_length,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        max_grad_norm=settings.max_grad_norm,
        optim=settings.optim,
        beta=settings.beta,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=recipe.model.dtype == "bfloat16",
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=1,
        logging_steps=settings.logging_steps,
        save_strategy="no",
        use_cpu=recipe.launch.cpu,
        disable_tqdm=True,
        seed=recipe.seed,
        report_to=[],
    )
    os.environ["TQDM_DISABLE"] = "1"

    class Prepared(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset  # it is token ids already

    trainer = Prepared(model=model, args=arguments, train_dataset=pairs, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    return trainer


RUNS = {"ours": ours, "TRL": trls}


def resident(field: str) -> int:
    """Return a size of this process in bytes, from `/proc/self/status`."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in text.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Train in this process; return the seconds of each step, the first loss and the memory."""
    import torch
    from transformers import TrainerCallback

    from posttrain.train.loop import quiet_libraries

    quiet_libraries()
    from posttrain.train.model import load_model, new_model
    from posttrain.train.tokenizer import equip, load_tokenizer, train_tokenizer

    cpu = not torch.cuda.is_available()
    settings = Dpo(
        max_length=options.max_length,
        global_batch_size=options.pairs,
        per_device_train_batch_size=options.batch,
        max_steps=options.steps,
        logging_steps=1,
        save_steps=10**6,
        learning_rate=1e-5,
    )
    section = Model(
        base=str(options.model) if options.model else None,
        new=None if options.model else SIZES,
        dtype=options.dtype,
        chat_template="tokenizer" if options.model else "llama-3.1",
    )
    recipe = Recipe(name="bench", model=section, dpo=settings, launch=Launch(cpu=cpu))
    if options.model:
        tokenizer = load_tokenizer(options.model, section)
        model = load_model(options.model, section, dtype="float32")
    else:
        tokenizer = train_tokenizer(["A boat on a lake.", "Vene on järvellä."], 400, "llama-3.1")
        model = new_model(SIZES, tokenizer, seed=1)
        model.config.use_cache = False
    equip(tokenizer, section)
    if not cpu:
        model = model.to("cuda")
    pairs = make_pairs(options.steps * options.pairs, options.scale, options.max_length, min(len(tokenizer), 8000))
    ends: list[float] = []

    class Note(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if not cpu:
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory(prefix="bench-dpo-") as temporary:
        trainer = RUNS[options.worker](recipe, model, tokenizer, pairs, Path(temporary))
        trainer.add_callback(Note())
        if cpu:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
            before = resident("VmRSS:")
        else:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        trainer.train()
        peak = resident("VmHWM:") if cpu else torch.cuda.max_memory_allocated()
    seconds = [later - earlier for earlier, later in itertools.pairwise(ends[WARM_UP - 1 :])]
    loss = trainer.state.log_history[WARM_UP]["loss"]
    return {"seconds": seconds, "loss": loss, "memory": (peak - before) / 1e6}


def main() -> None:
    """Print what was measured; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4, help="pairs a device of TRL's")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of an optimiser step")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--model", type=Path, help="a folder with a model and its tokenizer")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--scale", type=float, default=0.5, help="of all lengths")
    parser.add_argument("--worker", choices=sorted(RUNS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options)))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    for turn in range(options.repeat):
        for name in sorted(RUNS, reverse=bool(turn % 2)):  # so that neither always comes first
            command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--worker", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            run = json.loads(done.stdout.splitlines()[-1])
            found[name].append(run)
            speed = options.pairs / statistics.mean(run["seconds"])
            told = f"{speed:8.2f} pairs/s, {run['memory']:8,.0f} MB, loss of step 2 {run['loss']:.6f}"
            print(f"{name:<5} {told}", flush=True)
    speeds = {
        name: options.pairs / statistics.mean(map(min, *(run["seconds"] for run in runs)))
        if len(runs) > 1
        else options.pairs / statistics.mean(runs[0]["seconds"])
        for name, runs in found.items()
    }
    memory = {name: min(run["memory"] for run in runs) for name, runs in found.items()}
    result = {
        "name": f"dpo-batch-{options.batch}",
        "value": round(speeds["ours"], 3),
        "unit": "pairs/s",
        "peer": round(speeds["TRL"], 3),
        "ratio": round(speeds["ours"] / speeds["TRL"], 3),
        "memory_mb": round(memory["ours"]),
        "peer_memory_mb": round(memory["TRL"]),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
