"""The checkpoint that is quantised: found on the disk or the hub, and refused where it is not safe or not whole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from posttrain.assets import pickled_weights
from posttrain.errors import UserError
from posttrain.release.weights import read_header
from posttrain.train.model import is_adapter

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
_WANTED = ("*.safetensors", "*.safetensors.index.json", CONFIG, GENERATION_CONFIG, *TOKENIZER_FILES)


def fetch(key: str, name: str, revision: str | None, trust_remote_code: bool) -> Path:
    """Return the folder of a hub repository's snapshot: safetensors and small files, and no pickles.

    Args:
        key: The key of `model` that names it: `base`, or `tokenizer`, of which no weights are fetched.
        name: Its id.
        revision: The commit, branch or tag.
        trust_remote_code: Whether code is fetched too.

    Raises:
        UserError: It cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    wanted = _WANTED if key == "base" else (CONFIG, *TOKENIZER_FILES)
    patterns = [*wanted, "*.py"] if trust_remote_code else list(wanted)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(
            f"model.{key}: {name} cannot be fetched ({str(error).splitlines()[0]}); download it and give the folder"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file, an empty one where there is none or it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def source_problems(folder: Path, key: str, trust_remote_code: bool) -> list[str]:
    """Return why a checkpoint cannot be quantised: it is not whole, not safe, or no full unquantised model.

    Args:
        folder: The checkpoint.
        key: How messages call it.
        trust_remote_code: What the recipe says in `model.trust_remote_code`.
    """
    config = read_json(folder / CONFIG)
    if is_adapter(folder) and not config:
        return [f"{key}: {folder.name} is an adapter, and quantisation needs a full model; merge it first (lora.merge)"]
    if not config:
        return [f"{key}: {folder.name} holds no model: there is no {CONFIG} in it"]
    found = []
    if not list(folder.glob("*.safetensors")):
        pickles = pickled_weights(folder)
        if pickles:
            found.append(
                f"{key}: the weights of {folder.name} are pickles ({', '.join(pickles[:3])}), which run code when they "
                "are read; convert them to safetensors first"
            )
        else:
            found.append(f"{key}: {folder.name} has no safetensors weights")
    remote = "auto_map" in config or "auto_map" in read_json(folder / "tokenizer_config.json")
    if remote and not trust_remote_code:
        found.append(
            f"{key}: {folder.name} wants its own code to be run (auto_map); read that code, then set "
            "model.trust_remote_code=true"
        )
    if "quantization_config" in config:
        found.append(f"{key}: {folder.name} is quantised already; give the checkpoint that it was made from")
    return found


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a checkpoint by name, from the headers of its safetensors files.

    Raises:
        UserError: A file is not in the safetensors format, or not whole.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, entry in read_header(path).items():
            if name != "__metadata__":
                shapes[name] = tuple(entry["shape"])
    return shapes


def input_columns(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the input columns of each kind of matrix inside the decoder layers, by the last part of its name.

    Args:
        shapes: Shapes of the checkpoint's tensors; matrices are (outputs, inputs), as `torch.nn.Linear` has them.
    """
    columns: dict[str, int] = {}
    for name, shape in shapes.items():
        match = re.search(r"\.\d+\..*?([^.]+)\.weight$", name)
        if match and len(shape) == 2:
            columns[match[1]] = shape[1]
    return dict(sorted(columns.items()))


def weight_bytes(folder: Path) -> int:
    """Return the bytes of a folder's safetensors files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def longest(config: dict[str, Any]) -> int | None:
    """Return how many positions a model knows, or None where it does not say: ALiBi has no table of them."""
    text = config.get("text_config")
    content = text if isinstance(text, dict) else config
    most = content.get("max_position_embeddings")
    return most if isinstance(most, int) else None
