"""What can be seen to be wrong with a model folder from its small files, before torch is imported."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from posttrain.assets import read_launch_file
from posttrain.errors import UserError
from posttrain.recipe.schema import Model, Recipe

TRACKERS = ("tensorboard", "wandb", "trackio")
_SAFETENSORS = ("*.safetensors", "*.safetensors.index.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def tokenizer_size(folder: Path) -> int | None:
    """Return one more than the largest token id of a folder's fast tokenizer, or None where there is none."""
    tokenizer = _json(folder / "tokenizer.json")
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
    ids += [token["id"] for token in tokenizer.get("added_tokens", [])]
    ids += [int(key) for key in _json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})]
    return max(ids) + 1 if ids else None


def own_template(folder: Path) -> str | None:
    """Return the chat template saved with a tokenizer, or None."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = _json(folder / "tokenizer_config.json").get("chat_template")
    return template if isinstance(template, str) else None


def tracker_problems(recipe: Recipe) -> list[str]:
    """Return which trackers of `report_to` are not known or not installed."""
    found = []
    for name in recipe.report_to:
        if name not in TRACKERS:
            found.append(f"report_to: there is no tracker {name!r}; give any of {', '.join(TRACKERS)}")
        elif importlib.util.find_spec(name) is None:
            found.append(f"report_to: {name} is not installed; pip install {name}, or leave it out")
    return found


def launch_problems(recipe: Recipe) -> list[str]:
    """Return what the training processes could not be started with: a launch file that asks for a missing DeepSpeed."""
    config = recipe.launch.config
    if config is None:
        return []
    try:
        content = read_launch_file(config)
    except UserError as error:
        return error.problems
    if content.get("distributed_type") != "DEEPSPEED" or importlib.util.find_spec("deepspeed") is not None:
        return []
    problem = (
        f"launch.config: {config} divides the model by DeepSpeed, which is not installed; "
        "pip install -c constraints.txt -e '.[deepspeed]', or use launch/accelerate/fsdp2.yaml"
    )
    return [problem]


def model_problems(recipe: Recipe) -> list[str]:
    """Return what is wrong with the recipe's local model folder: no weights, or an embedding that is too small."""
    model = recipe.model
    if model.base is None or not Path(model.base).is_dir():
        return []
    folder = Path(model.base)
    config = _json(folder / "config.json")
    if not config:
        return [f"model.base: {folder} holds no model: there is no config.json in it"]
    if not any(next(folder.glob(pattern), None) for pattern in _SAFETENSORS):
        return [f"model.base: {folder} has no safetensors weights; convert the checkpoint first"]
    rows = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    tokens = tokenizer_size(Path(model.tokenizer or folder))
    if isinstance(rows, int) and tokens is not None and rows < tokens:
        problem = (
            f"model.base: the embedding of {folder} has {rows} rows, and its tokenizer {tokens} tokens; use the "
            f"tokenizer that belongs to the model (model.tokenizer), or one without the added tokens"
        )
        return [problem]
    return []


def template_problems(recipe: Recipe) -> list[str]:
    """Return why the recipe's chat template cannot be used for SFT: it is not there, or marks no assistant text."""
    from posttrain.chat import builtin_templates, require_markers, resolve
    from posttrain.chat.render import has_generation_markers

    model, sft = recipe.model, recipe.sft
    if sft is None or model.chat_template in builtin_templates():
        return []
    tokenizer = SimpleNamespace(chat_template=None)
    if model.chat_template == "tokenizer":
        folder = _tokenizer_folder(model)
        if folder is None:
            return []  # on the hub: the stage finds out when it has loaded the tokenizer
        tokenizer.chat_template = own_template(folder)
        if tokenizer.chat_template is not None and has_generation_markers(tokenizer.chat_template):
            return []
    try:
        require_markers(resolve(model.chat_template, tokenizer), sft.loss_on)
    except UserError as error:
        return error.problems
    return []


def _tokenizer_folder(model: Model) -> Path | None:
    path = Path(model.tokenizer or model.base or "")
    return path if (model.tokenizer or model.base) and path.is_dir() else None
