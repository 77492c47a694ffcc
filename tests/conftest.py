"""Settings that hold for every test, made before any library reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# No test may reach the network: a model or data set that is not on the disk is an error at once, not a long retry.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["MPLBACKEND"] = "Agg"
# Tiny models gain nothing from more, and threads of several processes on few cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real rows; the test is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("POSTTRAIN_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the folder of real rows is not here; set POSTTRAIN_SHARED_DATA")
    return folder
