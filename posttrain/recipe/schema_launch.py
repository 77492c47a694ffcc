"""The section of a recipe that says how its stages become jobs of a Slurm cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CpuJob:
    """A stage that needs no GPU: one node. `partition` is by default that of the training jobs, `time` too."""

    partition: str | None = None
    time: str | None = None
    cpus: int = 16
    sbatch_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """`posttrain run` submits each stage as a job that waits for the one before it.

    A stage that trains has `nodes` nodes with `gpus_per_node` devices each, and one process a device; other stages have
    one node (`cpu`). `script` is `train`, `lumi`, or the path of a job script of your own. `sbatch_args` are further
    options of sbatch by their long names, such as `qos`; true stands for an option without a value.
    """

    nodes: int = 1
    gpus_per_node: int = 8
    partition: str | None = None
    time: str | None = None
    account: str | None = None
    script: str = "train"
    sbatch_args: dict[str, Any] = field(default_factory=dict)
    cpu: CpuJob = field(default_factory=CpuJob)
