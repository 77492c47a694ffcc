"""A tiny checkpoint with its tokenizer, a built data folder to look at, and a recipe on both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli import main
from posttrain.preflight.findings import Finding
from posttrain.preflight.run import examine
from posttrain.recipe import load
from tests.helpers import make_tokenizer, save_checkpoint

Examine = Callable[..., list[Finding]]
BASIC: dict[str, Any] = {
    "name": "checked",
    "output_dir": "out",
    "model": {"dtype": "float32", "chat_template": "llama-3.1"},
    "data": {
        "sft": [
            {"source": "generic", "path": "builtin:samples/messages.jsonl", "license": "Apache-2.0", "max_rows": 12}
        ],
        "preference": [
            {"source": "generic", "path": "builtin:samples/preferences.jsonl", "license": "Apache-2.0", "max_rows": 12}
        ],
        "validation": {"fraction": 0.2},
    },
    "sft": {"max_length": 256, "global_batch_size": 2, "per_device_train_batch_size": 2},
    "dpo": {"max_length": 256, "global_batch_size": 2, "per_device_train_batch_size": 2},
    "launch": {"cpu": True},
}


@pytest.fixture(autouse=True)
def _nothing_of_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_MIXED_PRECISION", "POSTTRAIN_LOCK_OWNER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is made the working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model with tokenizer and template."""
    return save_checkpoint(make_tokenizer(), tmp_path_factory.mktemp("checkpoint"))


def written(here: Path, base: Path, **sections: Any) -> str:
    """Write the recipe with other sections in place of its own, merged one level deep; return its name."""
    recipe = json.loads(json.dumps(BASIC))
    recipe["model"]["base"] = str(base)
    for name, section in sections.items():
        old = recipe.get(name)
        recipe[name] = {**old, **section} if isinstance(section, dict) and isinstance(old, dict) else section
    path = here / "checked.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")  # which is YAML
    return path.name


@pytest.fixture
def examined(here: Path, checkpoint: Path) -> Examine:
    """Check the recipe with other sections."""

    def run(*, base: Path | None = None, forward: bool = False, hardware: Any = None, **sections: Any) -> list[Finding]:
        name = written(here, base or checkpoint, **sections)
        return examine(load(name), forward=forward, hardware=hardware)

    return run


@pytest.fixture
def built(here: Path, checkpoint: Path) -> Path:
    """The folder of the recipe's output, its data and tokens built."""
    assert main(["run", written(here, checkpoint), "--until", "tokenize-preference"]) == 0
    return here / "out"


def texts(found: list[Finding], level: str) -> list[str]:
    """Return the texts of the findings of a level."""
    return [finding.text for finding in found if finding.level == level]


def one(found: list[Finding], level: str, start: str) -> str:
    """Return the one finding of a level that begins so."""
    matching = [text for text in texts(found, level) if text.startswith(start)]
    assert len(matching) == 1, (start, found)
    return matching[0]
