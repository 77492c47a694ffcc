"""Peak memory of small trainings on a CPU, one process a configuration, to hold the planner's figures against.

    python -m tests.benchmarks.measure_memory            # every configuration, measured and planned
    python -m tests.benchmarks.measure_memory lora nf4   # some of them

What is measured is the growth of resident memory from a process that has imported everything and has trained a much
smaller model in the same way, to its highest during two optimiser steps of the trainers that the stages use. Freed
memory has to go back to the system for that, so the process runs with one arena of glibc's allocator and low
thresholds for mapping and trimming. It runs on one thread.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.planning.memory import Memory, peak
from posttrain.planning.setup import setup
from posttrain.recipe.schema import Dpo, Launch, Lora, Model, NewModel, Recipe, Sft

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

STEPS = 2  # the first one makes the optimiser's state, the second one has it from the start
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_TOP_PAD_": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
SMALL = NewModel(
    vocab_size=16384,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=10,
    num_attention_heads=8,
    num_key_value_heads=4,
    max_position_embeddings=2048,
)  # 39.9M parameters
SMOLLM2 = NewModel(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=2048,
)  # 134.5M parameters
WARM_UP = NewModel(vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_key_value_heads=2)
ADAPTER = Lora(r=16, target_modules="all-linear")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training to measure.

    Attributes:
        model: Sizes of the model.
        length: Tokens in a row, or in a prompt with one response.
        rows: Rows, or pairs, in a micro-batch.
        accumulate: Micro-batches in a step.
        reference: Where DPO has its reference from, as in the recipe.
    """

    stage: str = "sft"
    model: NewModel = SMALL
    length: int = 512
    rows: int = 1
    accumulate: int = 1
    dtype: str = "float32"
    trainable_dtype: str = "float32"
    checkpointing: bool = False
    lora: Lora | None = None
    quantization: str = "none"
    optim: str = "adamw_torch"
    reference: str | None = None
    packing: str = "bfd"

    def recipe(self, base: str) -> Recipe:
        """Return the recipe of this training, on one CPU process."""
        common: dict[str, Any] = {
            "global_batch_size": self.rows * self.accumulate,
            "per_device_train_batch_size": self.rows,
            "max_length": self.length,
            "max_steps": STEPS,
            "gradient_checkpointing": self.checkpointing,
            "optim": self.optim,
            "lora": self.lora,
            "quantization": self.quantization,
        }
        model = Model(base=base, dtype=self.dtype, trainable_dtype=self.trainable_dtype)  # type: ignore[arg-type]
        recipe = Recipe(name="measured", model=model, launch=Launch(cpu=True))
        if self.stage == "sft":
            return replace(recipe, sft=Sft(packing=self.packing, **common))  # type: ignore[arg-type]
        return replace(recipe, dpo=Dpo(reference=self.reference, **common))  # type: ignore[arg-type]


CASES = {
    "sft": Case(),
    "checkpointing": Case(model=SMOLLM2, length=1024, checkpointing=True),
    "bfloat16": Case(dtype="bfloat16", trainable_dtype="bfloat16", rows=2, length=256),
    "autocast": Case(dtype="bfloat16", length=256),
    "accumulation": Case(length=256, accumulate=2, model=SMOLLM2),
    "lora": Case(model=SMOLLM2, length=256, lora=ADAPTER),
    "nf4": Case(model=SMOLLM2, length=256, lora=ADAPTER, quantization="nf4"),
    "nf4-checkpointing": Case(
        model=SMOLLM2,
        length=256,
        rows=2,
        lora=ADAPTER,
        quantization="nf4",
        checkpointing=True,
        optim="paged_adamw_8bit",
    ),
    "dpo": Case(stage="dpo", length=256, reference="model"),
    "dpo-precomputed": Case(stage="dpo", length=256, reference="precomputed"),
    "dpo-lora": Case(stage="dpo", model=SMOLLM2, length=256, lora=ADAPTER, dtype="bfloat16"),
}


def _make(sizes: NewModel, folder: Path, dtype: str) -> None:
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(llama_config(sizes))
    model.to(getattr(torch, dtype)).save_pretrained(folder)


def llama_config(sizes: NewModel) -> Any:
    """Return transformers' configuration of a model of these sizes."""
    from dataclasses import asdict

    from transformers import LlamaConfig

    values = asdict(sizes)
    rope = {"rope_type": "default", "rope_theta": values.pop("rope_theta")}
    return LlamaConfig(**values, rope_parameters=rope, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def _rows(case: Case, vocabulary: int) -> Dataset:
    import numpy as np
    from datasets import Dataset

    random = np.random.default_rng(0)
    count = case.rows * case.accumulate * STEPS

    def ids(length: int) -> list[int]:
        return [int(token) for token in random.integers(3, vocabulary, length)]

    if case.stage == "sft":
        rows = [ids(case.length) for _ in range(count)]
        columns: dict[str, list[Any]] = {"input_ids": rows, "labels": rows}
        if case.packing == "bfd":  # two documents in each
            columns["seq_lengths"] = [[case.length // 2, case.length - case.length // 2]] * count
        return Dataset.from_dict(columns)
    prompt = case.length // 2
    columns = {"prompt_ids": [ids(prompt) for _ in range(count)]}
    for name in ("chosen_ids", "rejected_ids"):
        columns[name] = [ids(case.length - prompt) for _ in range(count)]
    return Dataset.from_dict(columns)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _load(case: Case, base: Path) -> PreTrainedModel:
    """Load a model, and copy what transformers leaves mapped from the file.

    A mapping keeps pages of all weights resident that were read once, also of those that are in 4 bits now. The system
    takes them back when it needs them, so they are no memory of the training.
    """
    from posttrain.train.model import load_model

    dtype = case.trainable_dtype if case.lora is None else case.dtype
    settings = Model(base=str(base), dtype=case.dtype)  # type: ignore[arg-type]
    model = load_model(base, settings, dtype=dtype, quantization=case.quantization)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()
    return model


def _with_reference(rows: Dataset, model: PreTrainedModel) -> Dataset:
    """Add the log-probabilities of the responses under the model."""
    import torch

    from posttrain.train.scoring import score_tokens

    columns: dict[str, list[float]] = {"ref_chosen_logps": [], "ref_rejected_logps": []}
    for row in rows:
        for name, response in zip(columns, (row["chosen_ids"], row["rejected_ids"]), strict=True):
            ids = torch.tensor([row["prompt_ids"] + response])
            labels = ids.clone()
            labels[:, : len(row["prompt_ids"])] = -100
            with torch.no_grad():
                columns[name].append(float(score_tokens(model(input_ids=ids).logits, labels)[0].sum()))
    for name, values in columns.items():
        rows = rows.add_column(name, values)
    return rows


def _train(case: Case, base: Path, folder: Path) -> None:
    """Load what the training needs, and train; the highest that memory has been is counted from after the loading."""
    import torch

    from posttrain.train.lora import lora_config
    from posttrain.train.trl import preference_trainer, supervised_trainer

    recipe = case.recipe(str(base))
    settings: Any = recipe.sft or recipe.dpo
    rows, model = _rows(case, case.model.vocab_size), _load(case, base)
    parts: dict[str, Any] = {
        "model": model,
        "train_dataset": _with_reference(rows, model) if case.reference == "precomputed" else rows,
        "eval_dataset": None,
        "processing_class": _tokenizer(),
        "peft_config": None if case.lora is None else lora_config(case.lora),
    }
    make: Any = supervised_trainer
    if case.stage == "dpo":
        make = preference_trainer
        parts["ref_model"] = _load(case, base) if case.reference == "model" else None
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # sets the highest back to the present
    trainer = make(settings, recipe, folder=folder, world_size=1, eval_on_start=False, **parts)
    trainer.restore_trainable_dtype(getattr(torch, case.trainable_dtype))
    trainer.args.save_strategy = "no"
    trainer.train()


def _resident(key: str) -> int:
    """Return `VmRSS`, or `VmHWM`, the highest it has been, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def _measure_here(case: Case) -> dict[str, int]:
    import warnings

    from transformers.trainer_callback import PrinterCallback
    from transformers.utils import logging

    from posttrain.train.loop import quiet_libraries

    quiet_libraries()
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    PrinterCallback.on_log = lambda *args, **kwargs: None
    dtype = case.trainable_dtype if case.lora is None else case.dtype
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make(WARM_UP, folder / "warm", dtype)
        _train(replace(case, model=WARM_UP, length=32), folder / "warm", folder / "run")
        _make(case.model, folder / "model", dtype)
        gc.collect()
        before = _resident("VmRSS")
        _train(case, folder / "model", folder / "run")
        return {"before": before, "peak": _resident("VmHWM"), "growth": _resident("VmHWM") - before}


def measure(name: str) -> dict[str, int]:
    """Train a case in a process of its own; return `before`, `peak` and `growth` of resident memory in bytes."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tests.benchmarks.measure_memory", "--here", name]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def planned(case: Case) -> Memory:
    """Return what the planner says of a case."""
    from posttrain.planning.model import config_of, shape

    sizes = shape(config_of(Model(new=case.model)))
    return peak(replace(setup(case.recipe("model"), case.stage, sizes, devices=1, how="none"), eval_rows=0))


def main(arguments: list[str]) -> None:
    """Print measured and planned growth of the cases named, or of all."""
    if arguments[:1] == ["--here"]:
        print(json.dumps(_measure_here(CASES[arguments[1]])))
        return
    print(f"{'case':<20}{'measured':>11}{'planned':>11}{'ratio':>8}   MB, and where the plan has the peak")
    for name in arguments or list(CASES):
        growth, memory = measure(name)["growth"], planned(CASES[name])
        ratio = memory.total / growth
        print(
            f"{name:<20}{growth / 1e6:>11,.0f}{memory.total / 1e6:>11,.0f}{ratio:>8.3f}   {memory.moment}", flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1:])
