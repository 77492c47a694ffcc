"""The environment of processes that a stage starts for a model: none of a launch, and one that GPTQModel works in."""

from __future__ import annotations

import os

# What accelerate and torch tell the processes of a launch; the processes started here are none of them.
_OF_A_LAUNCH = ("ACCELERATE_", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_", "RANK", "TORCHELASTIC_", "WORLD_SIZE")
_WORKERS = "GPTQMODEL_CPU_WORKERS"
_LEAST_WORKERS = 2  # GPTQModel asks for two loaders, and by default allows one on a machine of two cores


def child_environment() -> dict[str, str]:
    """Return this process's environment for one that it starts."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OF_A_LAUNCH)}
    workers = environment.get(_WORKERS, "")
    if not workers.isdigit() or int(workers) < _LEAST_WORKERS:
        environment[_WORKERS] = str(_LEAST_WORKERS)
    return environment
