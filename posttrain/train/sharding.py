"""FSDP2 and ZeRO-3: what accelerate and the trainers leave to their callers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

_FSDP, _DEEPSPEED, _ZERO3_INIT = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_ZERO3_INIT"
_kept_alive: list[Any] = []

Sharding = Literal["none", "fsdp", "deepspeed"]


def asked_for(variable: str) -> bool:
    """Say whether `accelerate launch` has set a switch in the environment."""
    return os.environ.get(variable, "").lower() in ("true", "1")


def requested() -> Sharding:
    """Return how the launch has its processes share a model."""
    return "fsdp" if asked_for(_FSDP) else "deepspeed" if asked_for(_DEEPSPEED) else "none"


def shard_on_processors() -> None:
    """Have accelerate shard over processes that train on the CPU, where its configuration asks for FSDP.

    accelerate 1.15 does what an `fsdp_config` says on GPUs only; on CPUs it trains the whole model in every process,
    and says nothing. torch's `fully_shard` works over gloo as well. To be called when the processes have joined, and
    before the trainer is made.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    state = PartialState()
    if asked_for(_FSDP) and state.distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def shard_while_loading() -> None:
    """Under ZeRO-3 with `zero3_init_flag`, have models that are loaded from now on be split as they are read.

    transformers looks for a configuration object that is alive. The trainer makes one, but only after the model, which
    each process would have loaded whole by then. (FSDP's `fsdp_cpu_ram_efficient_loading` needs nothing but that the
    processes have joined.)
    """
    if asked_for(_DEEPSPEED) and asked_for(_ZERO3_INIT) and not _kept_alive:
        from accelerate import DeepSpeedPlugin

        plugin = DeepSpeedPlugin()
        plugin.set_deepspeed_weakref()
        _kept_alive.append(plugin)


def load_whole_again() -> None:
    """Have models that are loaded from now on be whole: one process alone could not split them."""
    if requested() == "deepspeed":
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        _kept_alive.clear()
        unset_hf_deepspeed_config()


def rows_of(weight: torch.Tensor) -> int:
    """Return the first dimension of a weight, also where ZeRO-3 has left an empty one in its place."""
    return int(getattr(weight, "ds_shape", weight.shape)[0])


def size_of(weight: torch.Tensor) -> int:
    """Return how many numbers a weight has, whichever part of it this process holds."""
    return int(getattr(weight, "ds_numel", weight.numel()))


@contextlib.contextmanager
def _whole(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    """Give a weight gathered from all processes; every process must enter."""
    if hasattr(weight, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([weight]):
            yield weight.data
    else:
        full = getattr(weight, "full_tensor", None)  # of a DTensor
        yield full() if full is not None else weight.detach()


def gather(model: Any, *, keep: bool, trained_only: bool, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """Gather the weights of a sharded model, one at a time; every process must call it.

    Args:
        model: The model, unwrapped.
        keep: Whether this process gets them; the others get an empty dictionary.
        trained_only: Leave out what is frozen.
        dtype: Convert floating-point weights to this, which halves what is held; None leaves them.

    Returns:
        Names and weights, on the CPU. A tied weight comes once, under its first name.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # a forward pass leaves some gathered
    saved = set(model.state_dict(keep_vars=True))
    buffers = [(name, value) for name, value in model.named_buffers() if name in saved and not trained_only]
    gathered = {}
    for name, weight in [*model.named_parameters(), *buffers]:
        if trained_only and not weight.requires_grad:
            continue
        with _whole(weight) as whole:
            if keep:
                to = dtype if whole.is_floating_point() else None
                gathered[name.replace("_checkpoint_wrapped_module.", "")] = whole.detach().to("cpu", to, copy=True)
    return gathered
