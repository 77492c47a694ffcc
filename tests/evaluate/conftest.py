"""Tiny checkpoints, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluate.made import make_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folders of two tiny models with one tokenizer."""
    return make_models(tmp_path_factory.mktemp("models"))
