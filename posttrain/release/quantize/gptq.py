"""GPTQ by GPTQModel; runs in a process of its own, see `worker`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARD = "4GB"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A variant to make.

    Attributes:
        source: The checkpoint's folder.
        target: Where the variant is saved, as GPTQModel leaves it.
        variant: The settings of `posttrain.recipe.schema_quantize.Variant`.
        rows: Token ids to calibrate on.
        device: `cpu` or `cuda`.
        dtype: What calibration is computed in.
        batch_size: Rows of a forward pass.
        scratch: A folder for layers that are not in memory.
        trust_remote_code: As the recipe says.
    """

    source: str
    target: str
    variant: dict[str, Any]
    rows: list[list[int]]
    device: str
    dtype: str
    batch_size: int
    scratch: str
    trust_remote_code: bool


def quantise(job: Job) -> dict[str, Any]:
    """Make a variant and save it; return the number of torch's threads and of the layers quantised."""
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig
    from gptqmodel.looper import loop_processor

    loop_processor._PROJECT_LOG_DIR = Path(job.scratch).with_name("logs")  # by default in the user's working folder
    config = QuantizeConfig(**job.variant, offload_to_disk_path=job.scratch)
    model = GPTQModel.load(
        job.source,
        config,
        device=job.device,
        dtype=getattr(torch, job.dtype),
        trust_remote_code=job.trust_remote_code,
    )
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in job.rows]
    model.quantize(rows, batch_size=min(job.batch_size, len(rows)))
    layers = len(model.quant_log)
    model.save(job.target, max_shard_size=SHARD)
    if not next(Path(job.target).glob("*.safetensors"), None):
        raise RuntimeError("GPTQModel saved no weights")
    return {"threads": torch.get_num_threads(), "layers": layers}
