"""What tests of several folders share: a tiny checkpoint, the commands as processes, and the state of a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import posttrain
from posttrain.recipe.schema import Model, NewModel
from posttrain.stages.digest import sha256_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROOT = Path(posttrain.__file__).resolve().parents[1]
SIZES = NewModel(
    vocab_size=400,
    hidden_size=64,  # NF4 quantises blocks of 64 weights
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
)
MODEL = Model(new=SIZES, dtype="float32", chat_template="llama-3.1")
TEXT = ["The lake is calm and the boat is red.", "Järvi on tyyni ja vene on punainen.", "A fox runs over the snow."]

HEAVY = ("torch", "transformers", "datasets", "trl", "accelerate", "pyarrow", "matplotlib")


def make_tokenizer() -> PreTrainedTokenizerBase:
    """Train the tokenizer of the tiny model, with the Llama 3.1 template."""
    from posttrain.train.tokenizer import equip, train_tokenizer

    tokenizer = train_tokenizer(TEXT * 4, SIZES.vocab_size, MODEL.chat_template)
    equip(tokenizer, MODEL)
    return tokenizer


def save_checkpoint(tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Save the tiny model, with random float32 weights, and its tokenizer and template; return the folder."""
    import torch

    from posttrain.train.model import new_model, save_full, save_tokenizer
    from posttrain.train.tokenizer import equip, stop_ids

    template = equip(tokenizer, MODEL)
    save_full(
        new_model(SIZES, tokenizer, seed=1),
        folder,
        dtype=torch.float32,
        stops=stop_ids(tokenizer, template),
        pad=int(tokenizer.pad_token_id),
    )
    save_tokenizer(tokenizer, template, folder)
    return folder


def environment() -> dict[str, str]:
    """Return the variables for a process that runs this clone, whatever is installed and wherever it starts."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def start(arguments: Sequence[str], at: Path) -> subprocess.Popen[str]:
    """Start `python -m posttrain` with arguments in the folder `at`."""
    command = [sys.executable, "-m", "posttrain", *arguments]
    return subprocess.Popen(
        command, cwd=at, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run_python(arguments: Sequence[str], at: Path, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments in the folder `at`."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=at, env=environment(), capture_output=True, text=True, timeout=timeout)


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the modification time in nanoseconds and the SHA-256 of every file, hidden ones too, by relative name.

    Folders are in it with neither, the folder itself as `.`; where there is none, nothing is.
    """
    state = {}
    for path in [folder, *sorted(folder.rglob("*"))] if folder.exists() else []:
        name = path.relative_to(folder).as_posix()
        is_file = path.is_file()
        state[name] = (path.stat().st_mtime_ns, sha256_file(path)) if is_file else (0, "")
    return state
