"""TRL's fused LM head on processors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from trl.trainer import utils


@contextlib.contextmanager
def scored_positions_only() -> Iterator[None]:
    """Have TRL put only the positions with a label through the LM head, as it does on GPUs, on any device."""
    on_gpu = utils._use_triton
    utils._use_triton = lambda device: True
    try:
        yield
    finally:
        utils._use_triton = on_gpu
