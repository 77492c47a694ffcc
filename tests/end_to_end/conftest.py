"""An empty folder to run in, a cache of its own, the tiny checkpoint, and a whole chain that was built once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from posttrain.cli import main
from tests.helpers import make_tokenizer, save_checkpoint

# recipes/tiny.yaml made small: the same stages, sources and settings on fewer rows, weights and steps.
MINIATURE = (
    "launch.cpu=true",
    "model.new={vocab_size: 320, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2}",
    "cpt.max_steps=3",
    "cpt.validation_fraction=0.005",
    "cpt.max_length=128",
    "data.sft.0.max_rows=16",
    "data.sft.1.max_rows=8",
    "data.sft.2.max_rows=8",
    "data.sft.3.max_rows=8",
    "data.sft.4.max_rows=8",
    "data.sft.5.max_rows=8",
    "data.preference.0.max_rows=12",
    "data.preference.1.max_rows=12",
    "data.validation.fraction=0.15",
    "sft.max_steps=3",
    "dpo.max_steps=2",
    "eval=null",
    "release=null",
)

Run = Callable[..., int]


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_MIXED_PRECISION", "POSTTRAIN_LOCK_OWNER"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """Undo what a run in this process sets for its trackers."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is made the working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model with tokenizer and template."""
    return save_checkpoint(make_tokenizer(), tmp_path_factory.mktemp("checkpoint"))


def run_miniature(output: Path, *arguments: str) -> int:
    """Run the miniature of the tiny recipe into a folder, with further overrides or options."""
    return main(["run", "tiny", *MINIATURE, f"output_dir={output}", *arguments])


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a whole miniature chain, to be read or copied only."""
    output = tmp_path_factory.mktemp("built") / "output"
    assert run_miniature(output) == 0
    return output


@pytest.fixture
def copy_built(built: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy some folders of the built chain, all of them by default, to start from."""

    def copy(*folders: str, to: Path | None = None) -> Path:
        output = to or tmp_path / "output"
        for name in folders or ("base", "data", "tokens-sft", "tokens-preference", "sft", "ref_logps", "instruct"):
            shutil.copytree(built / name, output / name)
        return output

    return copy
