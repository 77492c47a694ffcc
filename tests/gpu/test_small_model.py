"""A real small model on a GPU: SFT and DPO in bfloat16 under FSDP2, and QLoRA; what they reach is printed.

Run with `pytest -m gpu tests/gpu -s`. The model is a folder named by `POSTTRAIN_SMALL_MODEL`, a chat model with its
tokenizer such as SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.stages import Manifest
from tests.helpers import ROOT, environment

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.skipif("POSTTRAIN_SMALL_MODEL" not in os.environ, reason="POSTTRAIN_SMALL_MODEL names no model"),
]
RECIPE = """\
name: gpu
model: {{base: {model}, dtype: bfloat16, chat_template: chatml}}
data:
  sft: [{{source: generic, path: chats.jsonl, license: Apache-2.0}}]
  preference: [{{source: generic, path: pairs.jsonl, license: Apache-2.0}}]
sft: {{global_batch_size: 16, per_device_train_batch_size: 8, max_length: 2048, max_steps: 30, logging_steps: 5,
  learning_rate: 1.0e-4}}
dpo: {{global_batch_size: 16, per_device_train_batch_size: 8, max_length: 1024, max_steps: 20, logging_steps: 5,
  learning_rate: 1.0e-6}}
"""
FSDP = [f"launch.config={ROOT}/launch/accelerate/fsdp2.yaml", "launch.num_processes=1"]
WORDS = [
    "lake",
    "boat",
    "calm",
    "red",
    "snow",
    "fox",
    "runs",
    "stone",
    "järvi",
    "vene",
    "tyyni",
    "lumi",
    "kettu",
    "kivi",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a recipe and rows of random words."""
    here = tmp_path_factory.mktemp("gpu")
    source = random.Random(1)

    def text(length: int) -> str:
        return " ".join(source.choice(WORDS) for _ in range(length))

    chats = [
        {"messages": [{"role": "user", "content": text(60)}, {"role": "assistant", "content": text(300)}]}
        for _ in range(3000)
    ]
    pairs = [{"prompt": text(40), "chosen": text(150), "rejected": text(150)} for _ in range(500)]
    for name, rows in (("chats", chats), ("pairs", pairs)):
        (here / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (here / "gpu.yaml").write_text(RECIPE.format(model=os.environ["POSTTRAIN_SMALL_MODEL"]), encoding="utf-8")
    return here


def train(folder: Path, stage: str, result: str, *overrides: str) -> dict[str, Any]:
    """Run a stage; print and return its last speed, model FLOPs utilisation and peak memory."""
    command = [sys.executable, "-m", "posttrain", stage, "gpu.yaml", *overrides]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    output = next((entry.partition("=")[2] for entry in overrides if entry.startswith("output_dir=")), "outputs/gpu")
    history = json.loads((folder / output / result / "history.json").read_text())
    keys = ("loss", "tokens_per_second", "mfu", "peak_memory_gb")
    last = {key: entry[key] for entry in history for key in keys if key in entry}
    last["reload_difference"] = Manifest.read(folder / output / result).metrics.get("reload_difference", 0.0)
    print(json.dumps({"stage": stage, "device": torch.cuda.get_device_name(), **overrides_shown(overrides), **last}))
    return last


def overrides_shown(overrides: tuple[str, ...]) -> dict[str, str]:
    """Return the overrides without folders of this machine."""
    return {key: Path(value).name for key, _, value in (entry.partition("=") for entry in overrides)}


def test_sft_and_dpo_in_bfloat16_with_fsdp2_on_one_device(folder: Path) -> None:
    sft = train(folder, "sft", "sft", *FSDP)
    assert sft["tokens_per_second"] > 1000
    assert sft["reload_difference"] < 0.05
    dpo = train(folder, "dpo", "instruct", *FSDP)
    assert dpo["reload_difference"] < 0.05


def test_fsdp2_on_one_device_trains_what_none_trains(folder: Path) -> None:
    sharded = train(folder, "sft", "sft", "output_dir=sharded", *FSDP)
    plain = train(folder, "sft", "sft", "output_dir=plain")
    assert sharded["loss"] == pytest.approx(plain["loss"], rel=0.02)


def test_qlora_holds_less_than_full_weights(folder: Path) -> None:
    lora = "sft.lora={r: 16, alpha: 32}"
    quantised = train(
        folder, "sft", "sft", "output_dir=qlora", lora, "sft.quantization=nf4", "sft.optim=paged_adamw_8bit"
    )
    full = train(folder, "sft", "sft", "output_dir=full")
    assert quantised["peak_memory_gb"] < full["peak_memory_gb"]
