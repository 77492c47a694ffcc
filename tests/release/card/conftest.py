"""Release folders with good cards, written once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.release.card.family import FAMILY, inputs, write_folder


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A release folder of each member of the family, by its name in results."""
    place = tmp_path_factory.mktemp("release")
    return {member.name: write_folder(inputs(member.name), place / member.name) for member in FAMILY}


@pytest.fixture
def copied(good: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copy a good folder, to be spoilt."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(good[name], tmp_path / name))

    return copy
