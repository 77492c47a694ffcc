"""Recipes of one training stage each, small enough to be trained again and again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from posttrain.cli import main

STEPS, SAVE_EVERY = 12, 3
TRAINING = f"global_batch_size: 4, per_device_train_batch_size: 2, max_steps: {STEPS}, save_steps: {SAVE_EVERY}, "
TRAINING += "save_total_limit: 1, logging_steps: 1, learning_rate: 1.0e-3, "
BASE = "model: {{base: {checkpoint}, dtype: float32, chat_template: llama-3.1}}\n"
RECIPES = {
    "cpt": "model: {new: {vocab_size: 320, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2}, "
    "dtype: float32, chat_template: llama-3.1}\n"
    'cpt: {text: [{path: "builtin:text/en.txt", license: Apache-2.0}], validation_fraction: 0.005, max_length: 64, '
    + TRAINING
    + "}\n",
    "sft": BASE + "data: {{sft: [{{source: generic, path: chats.jsonl, license: Apache-2.0}}]}}\n"
    "sft: {{max_length: 128, packing: none, " + TRAINING + "}}\n",
    "dpo": BASE + "data: {{preference: [{{source: generic, path: pairs.jsonl, license: Apache-2.0}}]}}\n"
    "dpo: {{max_length: 128, " + TRAINING + "}}\n",
}
FOLDERS = {"cpt": "base", "sft": "sft", "dpo": "instruct"}


def build(stage: str, here: Path, checkpoint: Path) -> Path:
    """Write the recipe of a stage, with its rows, and build it in one process; return the recipe.

    Args:
        stage: `cpt`, `sft` or `dpo`.
        here: The working folder. The result goes to `whole` in it, and what the stage reads to `cut` as well.
        checkpoint: The model to start from.
    """
    numbers = range(17)  # one is held out, and the others make whole batches in any number of processes
    turns = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"It is {n}."}] for n in numbers]
    rows: dict[str, list[dict[str, Any]]] = {
        "chats.jsonl": [{"messages": messages} for messages in turns],
        "pairs.jsonl": [{"prompt": f"{n}?", "chosen": f"{n}.", "rejected": "No, no."} for n in numbers],
    }
    for name, some in rows.items():
        (here / name).write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    text = RECIPES[stage] if stage == "cpt" else RECIPES[stage].format(checkpoint=checkpoint)
    path = here / f"{stage}.yaml"
    path.write_text(f"name: faults\nlaunch: {{cpu: true}}\n{text}", encoding="utf-8")
    assert main(["run", path.name, "output_dir=whole"]) == 0
    shutil.copytree("whole", "cut")
    shutil.rmtree(Path("cut", FOLDERS[stage]))
    return path
