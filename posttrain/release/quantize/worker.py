"""`python -m posttrain.release.quantize.worker JOB RESULT`: one job in a process of its own.

The parent reads the result from a file, because what GPTQModel prints has no form to rely on. GPTQModel starts too few
workers for itself on a machine with two cores, which the parent's environment mends (`GPTQMODEL_CPU_WORKERS`).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # of prctl(2)


def end_with(parent: int) -> None:
    """Have the kernel kill this process when the one that started it dies, however that dies.

    Left behind, it would go on writing where the next start of the stage writes the same variant.

    Args:
        parent: Its process id; if it has died meanwhile, this process ends here.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job in one JSON file and write its result to another."""
    job_file, result_file = (Path(name) for name in (arguments if arguments is not None else sys.argv[1:]))
    job = json.loads(job_file.read_text(encoding="utf-8"))
    end_with(os.getppid())
    import torch

    if job["threads"] is not None:
        torch.set_num_threads(job["threads"])
    result: dict[str, Any]
    if job["kind"] == "quantise":
        from posttrain.release.quantize import gptq

        result = gptq.quantise(gptq.Job(**job["job"]))
    else:
        from posttrain.release.quantize import measure

        result = measure.measure(measure.Job(**job["job"]))
    result_file.write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
