"""DPO in packed rows over two processes against TRL's padded batches in one: every figure, and the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.end_to_end.small import build
from tests.end_to_end.test_sharded import FSDP, run

# Figures that time, or the number of processes, or what is computed decides.
OTHERS = ("per_second", "runtime", "packing_efficiency", "flos", "memory", "difference")


@pytest.mark.slow
@pytest.mark.parametrize("launch", [["launch.num_processes=2"], FSDP], ids=["ddp", "fsdp2"])
def test_two_processes_in_packed_rows_train_what_one_trains_padded(
    here: Path, checkpoint: Path, launch: list[str]
) -> None:
    build("dpo", here, checkpoint)
    batch = ["dpo.global_batch_size=8", "dpo.per_device_train_batch_size=2", "dpo.tokens_per_row=150"]
    said = run("dpo", "padded", *batch, "dpo.per_device_train_batch_size=8", "dpo.shared_prefix=off")
    assert "shared prefixes: off, as the recipe says" in said
    said = run("dpo", "packed", *batch, *launch)
    assert "shared prefixes: on" in said
    one, two = (json.loads(Path(name, "instruct/history.json").read_text()) for name in ("padded", "packed"))
    assert len(one) == len(two)
    for before, after in zip(one, two, strict=True):
        for key in before.keys() & after.keys():
            if not any(other in key for other in OTHERS):
                assert after[key] == pytest.approx(before[key], rel=1e-4, abs=2e-5), key
    alone, together = (load_file(Path(name, "instruct/model.safetensors")) for name in ("padded", "packed"))
    for name, weight in alone.items():
        assert torch.allclose(weight, together[name], rtol=1e-3, atol=1e-4), name
