"""A chain whose models are not trained but saved, and the release of it, built by the real stage.

The fixtures are taken over by the conftest of each folder that needs them; the chain is built once for all.
"""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from posttrain.recipe import LoadedRecipe, load
from posttrain.release import answer
from posttrain.stages.context import Context
from posttrain.stages.graph import Stage, chain
from posttrain.stages.runner import run
from tests.helpers import make_tokenizer, save_checkpoint

RECIPE = """\
name: mini
model: {{base: "{base}", dtype: float32, chat_template: llama-3.1}}
data:
  sft: [{{source: generic, path: "builtin:samples/messages.jsonl", license: Apache-2.0, max_rows: 8}}]
  preference: [{{source: generic, path: "builtin:samples/preferences.jsonl", license: Apache-2.0, max_rows: 8}}]
sft: {{max_steps: 1, max_length: 128}}
dpo: {{max_steps: 1, max_length: 128}}
launch: {{cpu: true}}
release: {{name: Mini, org: lab, base_model: lab/tiny-base, license: Apache-2.0, max_new_tokens: 8}}
"""


_ONCE: dict[str, Path] = {}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model with tokenizer and template."""
    if "checkpoint" not in _ONCE:
        folder = tmp_path_factory.mktemp("checkpoint") / "tiny-base"
        _ONCE["checkpoint"] = save_checkpoint(make_tokenizer(), folder)
    return _ONCE["checkpoint"]


def fakes(checkpoint: Path) -> dict[str, Callable[[Context], None]]:
    """Return builds that leave what the real stages leave, as far as a release reads it."""

    def model(context: Context) -> None:
        shutil.copytree(checkpoint, context.folder, dirs_exist_ok=True)
        if context.stage == "dpo":
            weights = context.folder / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1] + b"\x3d")  # a part of the last number
        (context.folder / "loss.png").write_bytes(b"\x89PNG")
        (context.folder / "history.json").write_text('[{"step": 1, "loss": 2.5, "runtime": 3.25}]')
        context.leave_out_of_digest("history.json", "*.png")
        context.report({"steps": 1, "train_tokens": 128, "train_trained_tokens": 64, "tokens_per_second": 12.5})

    def rows(context: Context) -> None:
        (context.folder / "rows.txt").write_text(f"{context.stage} of seed {context.seed}\n")
        if context.stage == "data":
            record = {"entry": "data.sft.0", "path": "builtin:samples/messages.jsonl", "revision": None, "rows": 8}
            context.provenance({**record, "licenses": ["Apache-2.0"], "files": [{"name": "a", "sha256": "0" * 64}]})

    return {
        "sft": model,
        "dpo": model,
        **dict.fromkeys(("data", "tokenize-sft", "tokenize-preference", "ref-logps"), rows),
    }


def stages_of(loaded: LoadedRecipe, checkpoint: Path) -> list[Stage]:
    """Return the recipe's chain with the fakes in place of what is dear."""
    builds = fakes(checkpoint)

    def without_checks(recipe: Any, world_size: int) -> list[str]:
        return []

    return [
        dataclasses.replace(stage, build=builds[stage.name], trains=False, check=without_checks)
        if stage.name in builds
        else stage
        for stage in chain(loaded.recipe)
    ]


def build_chain(checkpoint: Path, output: Path, *overrides: str, text: str = RECIPE) -> Path:
    """Build the chain with its release into a folder; return the folder."""
    recipe = output.parent / f"{output.name}.yaml"
    recipe.write_text(text.format(base=checkpoint), encoding="utf-8")
    loaded = load(recipe, [f"output_dir={output}", *overrides])
    run(loaded, console=Console(file=io.StringIO()), stages=stages_of(loaded, checkpoint))
    return output


def spare_processes(patch: pytest.MonkeyPatch) -> None:
    """Spare the processes in which folders answer; what they do is tested by itself."""
    patch.setattr(answer, "ask", lambda *given, **more: answer.Answer("Fine.", 3, True))


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let a test build releases of its own without those processes."""
    spare_processes(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def built(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a whole chain with its release; to be read or copied only."""
    if "built" not in _ONCE:
        with pytest.MonkeyPatch.context() as patch:
            spare_processes(patch)
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
            _ONCE["built"] = build_chain(checkpoint, tmp_path_factory.mktemp("one") / "out")
    return _ONCE["built"]


@pytest.fixture
def release(built: Path, tmp_path: Path) -> Path:
    """A copy of the released Instruct folder."""
    return Path(shutil.copytree(built / "release" / "instruct", tmp_path / "instruct"))
