"""Where the package's own recipes and data are: inside an installed wheel, or in the clone."""

from __future__ import annotations

from pathlib import Path

BUILTIN = "builtin:"

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
