"""The devices that a plan knows: memory, peak, power, and how much of the peak training is assumed to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from posttrain.errors import UserError
from posttrain.recipe.suggest import did_you_mean

if TYPE_CHECKING:
    from posttrain.planning.step import Setup

GIB = 2**30
# Left free of the memory that a device reports: the driver's context, libraries' buffers and kernels (about 1 GB), the
# buffers of the collectives (about 0.5 GB), and blocks of the caching allocator that fit nothing (some per cent).
RESERVED = 1.5e9
FRAGMENTATION = 0.04


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One kind of device.

    Attributes:
        title: What a plan calls it.
        memory: Bytes that PyTorch reports of it.
        peak: Dense matrix products in bf16, FLOP/s.
        watts: Drawn under load; the maker's board or module power.
        per_node: Devices in a usual node, for advice.
        used: Share of the peak that is used, with one device or DDP; an assumption. What checkpointing computes anew
            is in it, so the MFU is this share or, with checkpointing, three quarters of it.
        used_sharded: The same under FSDP2 and ZeRO-3, where weights are gathered layer by layer.
    """

    title: str
    memory: float
    peak: float
    watts: float
    per_node: int
    used: float
    used_sharded: float

    @property
    def usable(self) -> float:
        """Bytes that a training may count on."""
        return self.memory * (1 - FRAGMENTATION) - RESERVED


# Peaks are those of the makers' data sheets, without sparsity, as in `posttrain.train.throughput`. The shares of the
# peak are assumptions for transformers' models with SDPA, unfused; a run's log says what it really reaches.
HARDWARE = {
    # AMD Instinct MI250X data sheet: 383 TFLOP/s, 128 GB and 500 to 560 W for a card of two dies; PyTorch sees each die
    # as a device. Publicly reported trainings on LUMI reach 0.3 to 0.4 with Megatron, less with others.
    "MI250X": Hardware(
        title="MI250X die", memory=63.98 * GIB, peak=191.5e12, watts=280, per_node=8, used=0.30, used_sharded=0.22
    ),
    # NVIDIA A100 data sheet: 312 TFLOP/s, SXM4 400 W, both memory sizes.
    "A100-40G": Hardware(
        title="A100 40 GB", memory=39.4 * GIB, peak=312e12, watts=400, per_node=8, used=0.42, used_sharded=0.35
    ),
    "A100-80G": Hardware(
        title="A100 80 GB", memory=79.2 * GIB, peak=312e12, watts=400, per_node=8, used=0.42, used_sharded=0.35
    ),
    # NVIDIA H100 data sheet, SXM5: 989 TFLOP/s (1,979 with sparsity), 80 GB, 700 W.
    "H100": Hardware(
        title="H100 80 GB", memory=79.2 * GIB, peak=989e12, watts=700, per_node=8, used=0.38, used_sharded=0.30
    ),
    # NVIDIA H200 data sheet, SXM: the same chip with 141 GB.
    "H200": Hardware(
        title="H200 141 GB", memory=139.8 * GIB, peak=989e12, watts=700, per_node=8, used=0.38, used_sharded=0.32
    ),
    # NVIDIA Ada architecture paper: 165 TFLOP/s in bf16 with sums in float32, 24 GB, 450 W.
    "RTX4090": Hardware(
        title="RTX 4090 24 GB", memory=23.5 * GIB, peak=165.2e12, watts=450, per_node=1, used=0.42, used_sharded=0.25
    ),
}
# bitsandbytes unpacks 4-bit weights before each product, and again in the backward pass.
_NF4_FACTOR = 0.75


def named(name: str) -> Hardware:
    """Return a kind of device by its name.

    Raises:
        UserError: There is none of that name.
    """
    plain = {key.lower().replace("-", "").replace(" ", ""): key for key in HARDWARE}
    found = plain.get(name.lower().replace("-", "").replace(" ", "").replace("_", ""))
    if found is None:
        raise UserError(f"--hardware: there is no {name!r}; {did_you_mean(name, list(HARDWARE))}")
    return HARDWARE[found]


def used_share(hardware: Hardware, setup: Setup) -> float:
    """Return the share of the peak that a stage is assumed to use, recomputation included."""
    share = hardware.used_sharded if setup.shards > 1 else hardware.used
    return share * (_NF4_FACTOR if setup.nf4 else 1.0)
