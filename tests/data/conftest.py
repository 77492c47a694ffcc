"""Fixture files, and the real rows where they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).parent / "fixtures"

Load = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def fixtures() -> Path:
    return FIXTURES


@pytest.fixture
def load() -> Load:
    """Return the records of a fixture file."""
    return lambda name: [json.loads(line) for line in (FIXTURES / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real rows; the test is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("POSTTRAIN_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the folder of real rows is not here; set POSTTRAIN_SHARED_DATA")
    return folder
