"""The loss curve of a training stage, from the log that it left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HISTORY = "history.json"


def curves(folder: Path) -> dict[str, list[list[float]]] | None:
    """Return the logged losses of a stage as (step, loss), those of training and those on held-out rows.

    Returns:
        `loss` and `eval_loss`, or None where the stage left no log.
    """
    try:
        history: Any = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return {
        key: [[entry["step"], entry[key]] for entry in history if isinstance(entry, dict) and key in entry]
        for key in ("loss", "eval_loss")
    }
