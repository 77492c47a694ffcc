"""Fixture files."""

from __future__ import annotations

import json
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
