"""What determines the tokens of a set: the tokenizer without the model's weights, the template, and a few settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.stages.external import External, external

if TYPE_CHECKING:
    from posttrain.recipe.schema import Model, Recipe

# The settings of a training section that its tokens depend on.
SETTINGS = {"sft": ("max_length", "packing", "loss_on"), "dpo": ("max_length",)}
_CONFIG = "tokenizer_config.json"
_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    _CONFIG,
    "vocab.json",
    "vocab.txt",
)


def _source(model: Model) -> tuple[str, str] | None:
    """Return the recipe's key for where the tokenizer comes from, and its value; None if the cpt stage trains it."""
    if model.new is not None:
        return None
    if model.tokenizer is not None:
        return "tokenizer", model.tokenizer
    return ("base", model.base) if model.base is not None else None


def tokenizer_files(model: Model) -> list[External]:
    """Return the files of a local tokenizer, each by itself, so that a difference names the one that changed."""
    source = _source(model)
    if source is None:
        return []
    key, written = source
    there = external(f"model.{key}", written)
    if there.path is None or not there.path.is_dir():
        return [there]
    names = [name for name in _FILES if (there.path / name).is_file()]
    if not _names_class(there.path):
        names += [name for name in ("config.json",) if (there.path / name).is_file()]  # the class goes by the model's
    return [External(f"model.{key}/{name}", f"{written}/{name}", there.path / name) for name in names]


def _names_class(folder: Path) -> bool:
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool(config.get("tokenizer_class"))


def tokenizer_keys(model: Model) -> list[str]:
    """Return the keys that name a tokenizer of the hub; a local one is told by its files."""
    source = _source(model)
    if source is None or external(f"model.{source[0]}", source[1]).path is not None:
        return []
    return [source[0], "revision"] if source[0] == "base" else [source[0]]


def counts_tokens(recipe: Recipe) -> bool:
    """Say whether the rows of a recipe are filtered by their length in tokens."""
    length = recipe.data.filters.length
    return length is not None and length.max_tokens is not None


def length_tokenizer(recipe: Recipe) -> Path | None:
    """Return the `tokenizer.json` by which the length of rows is counted, or None where it is not.

    Raises:
        UserError: There is none.
    """
    if not counts_tokens(recipe):
        return None
    source = _source(recipe.model)
    assert source is not None, "a rule of the recipe forbids it"
    key, written = source
    there = external(f"model.{key}", written)
    problem = f"data.filters.length.max_tokens: {written} has no tokenizer.json to count tokens with"
    if there.path is not None:
        if not (there.path / "tokenizer.json").is_file():
            raise UserError(f"{problem}; name another model.tokenizer, or leave max_tokens out")
        return there.path / "tokenizer.json"
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    revision = recipe.model.revision if key == "base" else None
    try:
        return Path(hf_hub_download(written, "tokenizer.json", revision=revision))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(f"{problem} that can be fetched: {str(error).splitlines()[0]}") from error


def token_part(recipe: Recipe, section: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return the `Stage.part` of a tokenize stage.

    Args:
        recipe: Tells whether the tokenizer is local, and then is its files, or is on the hub, and then its name.
        section: `sft` or `dpo`.
    """
    keys = ["chat_template", "trust_remote_code", *tokenizer_keys(recipe.model)]

    def part(resolved: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "model": {key: resolved["model"][key] for key in keys},
            section: {key: resolved[section][key] for key in SETTINGS[section]},
        }

    return part
