"""One training step as a plan sees it: what is trained on what, in which numbers, and how devices share it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from posttrain.planning.model import Shape

Strategy = Literal["none", "ddp", "fsdp2", "zero3"]
SHARDED: tuple[Strategy, ...] = ("fsdp2", "zero3")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What of LoRA takes memory: its rank, its dropout, the names of the layers adapted, and how much is trained."""

    r: int
    dropout: float
    names: tuple[str, ...]
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One training step on each of several devices.

    Attributes:
        shape: The model.
        stage: `cpt`, `sft` or `dpo`.
        rows: In a micro-batch, on each device; pairs in `dpo`.
        length: Tokens in a row, or in a prompt and one response.
        accumulate: Micro-batches in a step.
        dtype: What is computed in, and frozen weights are kept in.
        trainable_dtype: What trained weights are kept in.
        strategy: How devices share the work.
        devices: How many there are.
        cpu: Whether they are processors.
        adapter: LoRA's, or None if all weights are trained.
        nf4: Whether the matrices of the layers are in 4 bits.
        optim: The optimiser, as transformers names it.
        checkpointing: Whether activations of the layers are computed anew in the backward pass.
        attention: `sdpa`, `eager`, or one of the flash kinds.
        packed: Whether several documents lie end to end in a row, kept apart by attention.
        reference: Whether a second copy of the model is held, as DPO's reference.
        eval_rows: Rows, or pairs, of an evaluation's batch; 0 without held-out rows.
        forward_reference: Whether DPO runs a reference forward for each batch, by that copy or without the adapter.
    """

    shape: Shape
    stage: str
    rows: int
    length: int
    accumulate: int = 1
    dtype: str = "bfloat16"
    trainable_dtype: str = "float32"
    strategy: Strategy = "none"
    devices: int = 1
    cpu: bool = False
    adapter: Adapter | None = None
    nf4: bool = False
    optim: str = "adamw_torch"
    checkpointing: bool = False
    attention: str = "sdpa"
    packed: bool = False
    reference: bool = False
    eval_rows: int = 0
    forward_reference: bool = False

    @property
    def tokens(self) -> int:
        """Tokens in a micro-batch; of a pair both responses, each behind the prompt."""
        return self.rows * self.length * (2 if self.stage == "dpo" else 1)

    @property
    def row(self) -> int:
        """Tokens that attention sees as one row: packed rows of a micro-batch are laid end to end."""
        return self.rows * self.length if self.packed else self.length

    @property
    def compute(self) -> int:
        """Bytes of a number in the forward pass."""
        return BYTES[self.dtype]

    @property
    def kept(self) -> int:
        """Bytes of a weight that is trained, where it is not in shards: in the process's own copy."""
        return BYTES[self.trainable_dtype if self.adapter is None else self.dtype]

    @property
    def residual(self) -> int:
        """Bytes of a number in the residual stream: that of the embedding's output.

        Autocast leaves the embedding in its own dtype. FSDP2 and ZeRO-3 gather weights in the compute dtype.
        """
        return self.compute if self.strategy in SHARDED else self.kept

    @property
    def casts(self) -> bool:
        """Whether each linear layer gets a copy of its input in the compute dtype, and of its weight."""
        return self.residual != self.compute

    @property
    def apart(self) -> bool:
        """Whether each adapter gets a copy of its input.

        PEFT casts it to the adapter's float32 and autocast back. On 4-bit layers it leaves that to autocast.
        """
        return self.adapter is not None and self.compute < BYTES[self.trainable_dtype] and not self.nf4

    @property
    def trained(self) -> int:
        """Parameters that are trained."""
        return self.shape.parameters.total if self.adapter is None else self.adapter.parameters

    @property
    def shards(self) -> int:
        """Among how many devices the model states are divided."""
        return self.devices if self.strategy in SHARDED else 1
