"""Where the package's own recipes and data are: inside an installed wheel, or in the clone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from posttrain.errors import UserError

BUILTIN = "builtin:"
HUB_FILE = "hf://"

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_FILE_SUFFIXES = (
    ".arrow",
    ".csv",
    ".gguf",
    ".gz",
    ".jinja",
    ".json",
    ".jsonl",
    ".md",
    ".parquet",
    ".txt",
    ".yaml",
    ".yml",
    ".zst",
)
_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_assets"  # where the wheel puts recipes/ and data/, see pyproject.toml
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def asset_folder(room: str) -> Path:
    """Return the folder of a room, `recipes`, `data` or `launch`."""
    installed = _INSTALLED / room
    return installed if installed.is_dir() else _PACKAGE.parent / room


def locate(path: str) -> str:
    """Turn `builtin:samples/x.jsonl` into the path of that file under `data/`; leave any other path as it is."""
    if path.startswith(BUILTIN):
        return str(asset_folder("data") / path.removeprefix(BUILTIN))
    return path


def launch_file(written: str) -> Path:
    """Return an accelerate configuration file: a path, or else one of the package's, `launch/accelerate/ddp.yaml`."""
    path = Path(written).expanduser()
    if path.exists():
        return path
    own = asset_folder("launch") / written.removeprefix("launch/")
    return own if own.is_file() else path


def read_launch_file(written: str) -> dict[str, Any]:
    """Return the content of an accelerate configuration file, see `launch_file`; of an empty one, an empty mapping.

    Raises:
        UserError: It cannot be read, or holds no mapping of YAML.
    """
    import yaml

    where = f"launch.config: {written}"
    try:
        content = yaml.safe_load(launch_file(written).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror}); correct the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not text in UTF-8; correct the path") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{where} holds no settings, `key: value` each; correct the path or the file")
    return content or {}


def is_hub_id(written: str, *, bare: bool = False) -> bool:
    """Tell a repository of the hub from a path.

    Whatever exists is a path, and so is what has the suffix of a file. Of the rest `owner/name` is a hub id unless
    there is a folder `owner` here, and anything else is a path to something missing.

    Args:
        written: The value as the recipe has it.
        bare: Whether `name` alone is a hub id too, as `gpt2` is among models.
    """
    if written.startswith(BUILTIN) or written.endswith(_FILE_SUFFIXES) or Path(written).exists():
        return False
    names = written.split("/")
    if len(names) > 2 or not all(_NAME.fullmatch(name) for name in names):
        return False
    return bare if len(names) == 1 else not Path(names[0]).exists()


def is_hub_file(written: str) -> bool:
    """Tell a file in a repository of the hub (`hf://OWNER/NAME/FILE`, `hf://OWNER/NAME@REVISION/FILE`) from a path."""
    return written.startswith(HUB_FILE)


def pickled_weights(folder: Path) -> list[str]:
    """Return the names of the files in a folder that hold weights as pickles, which run code when they are read."""
    return sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
