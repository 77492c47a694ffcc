"""Where the package's own recipes and data are: inside an installed wheel, or in the clone."""

from __future__ import annotations

import re
from pathlib import Path

BUILTIN = "builtin:"

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
