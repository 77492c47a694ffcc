"""Settings that hold for every test, made before any library reads them."""

from __future__ import annotations

import os

# No test may reach the network: a model or data set that is not on the disk is an error at once, not a long retry.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["MPLBACKEND"] = "Agg"
# Tiny models gain nothing from more, and threads of several processes on few cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
