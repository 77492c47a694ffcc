"""The files of a checkpoint that are published: safetensors, configuration and tokenizer, and nothing that runs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from posttrain.errors import UserError
from posttrain.release.limits import TEXT, TOKENIZER, read_json, size_problem
from posttrain.release.sums import release_files
from posttrain.release.weights import weight_problems
from posttrain.stages.digest import sha256_file

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
# Words of the tokenizer's own vocabulary are in these, and no sentences.
VOCABULARIES = (
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)
_SMALL = (
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER_CONFIG,
    TEMPLATE,
    "additional_chat_templates/*.jinja",
    "chat_template.json",
    "quantize_config.json",
    "special_tokens_map.json",
)
# What the stages keep beside a model, for whoever trained it.
LEFT_BEHIND = ("manifest.json", "history.json", "*.png", "rejected.parquet", "adapter/*")
_PICKLES = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz", ".joblib", ".h5", ".msgpack")


def is_model_file(name: str) -> bool:
    """Say whether a file belongs to a model as it is published."""
    return any(fnmatchcase(name, pattern) for pattern in (*WEIGHTS, *VOCABULARIES, *_SMALL))


def model_files(folder: Path, trust_remote_code: bool) -> list[str]:
    """Return the names of the files of a checkpoint that are published.

    Args:
        folder: The checkpoint's folder.
        trust_remote_code: Whether the recipe allows a model to bring code of its own.

    Raises:
        UserError: Everything that must not be, or cannot be, published: pickles, code, files of an unknown kind, links,
            files of absurd size, weights that are not whole.
    """
    names, problems = [], []
    for name in release_files(folder):
        path = folder / name
        if any(fnmatchcase(name, pattern) for pattern in LEFT_BEHIND):
            continue
        if name.endswith(".py") and trust_remote_code:
            names.append(name)
        elif is_model_file(name):
            names.append(name)
            most = TOKENIZER if name in VOCABULARIES else TEXT
            if not name.endswith(".safetensors") and (problem := size_problem(path, name, most)):
                problems.append(problem)
            elif path.is_symlink():
                problems.append(f"{name}: is a link, and a release holds files of its own; copy the file here")
        else:
            problems.append(unexpected(name))
    if CONFIG not in names:
        problems.append(f"there is no {CONFIG} in it, so it is no model that transformers loads")
    if not problems:
        problems += weight_problems(folder, names)
        if not trust_remote_code:
            problems += remote_code_problems(folder, names)
    if problems:
        raise UserError(problems)
    return names


def unexpected(name: str) -> str:
    """Say why a file is in no release."""
    if name.endswith(_PICKLES):
        return f"{name}: pickles and their like run code when they are read; only safetensors are released"
    if name.endswith((".py", ".so", ".sh", ".ipynb")):
        return f"{name}: is code, and a model that needs its own is released only with model.trust_remote_code=true"
    return f"{name}: is of a kind that no release holds; move it out of the folder"


def remote_code_problems(folder: Path, names: list[str]) -> list[str]:
    """Return a line for each configuration that would have transformers run code of the repository."""
    found = []
    for name in (CONFIG, TOKENIZER_CONFIG, GENERATION_CONFIG):
        if name not in names:
            continue
        try:
            wants = _mentions(read_json(folder / name, name), ("auto_map", "custom_generate"))
        except UserError as error:
            found += error.problems
            continue
        if wants:
            found.append(
                f"{name}: asks for code of its own ({wants}), which transformers would run; such a model is released "
                "only with model.trust_remote_code=true"
            )
    return found


def _mentions(value: Any, keys: tuple[str, ...]) -> str | None:
    if isinstance(value, Mapping):
        here = next((key for key in keys if value.get(key)), None)
        return here or next((found for child in value.values() if (found := _mentions(child, keys))), None)
    if isinstance(value, list):
        return next((found for child in value if (found := _mentions(child, keys))), None)
    return None


def copy_model(source: Path, target: Path, names: list[str], recorded: Mapping[str, Mapping[str, Any]]) -> None:
    """Copy a checkpoint's files, and check each copy against the manifest of the stage that made it.

    Args:
        source: The checkpoint's folder.
        target: The release's folder.
        names: The files.
        recorded: What the manifest has of them, `sha256` and `bytes` by these names.

    Raises:
        UserError: A file is not the one that the stage recorded.
    """
    problems = []
    for name in names:
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, copy)  # with the permissions of a new file: safetensors come as 0600
        entry = recorded.get(name)
        if entry is None:
            problems.append(f"{name}: was added after the stage had ended")
        elif sha256_file(copy) != entry["sha256"]:
            problems.append(f"{name}: was changed after the stage had ended")
    if problems:
        raise UserError(problems)
