"""What a recipe may say about quantised variants of a checkpoint (GPTQ, arXiv 2210.17323)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

GROUP_SIZES = (-1, 16, 32, 64, 128, 256, 512, 1024)
# Kernels of GPTQModel for weights of GPTQ. All but `auto` and the `torch` ones need a GPU or a package of their own.
BACKENDS = (
    "auto",
    "torch",
    "torch_fused",
    "torch_int8",
    "gptq_torch_aten",
    "triton",
    "exllama_v2",
    "machete",
    "marlin",
    "bitblas",
)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One quantised copy of the checkpoint.

    Each row of a weight matrix shares a scale and a zero point over `group_size` of its columns; -1 is one group over
    all of them. `desc_act` (act order) quantises the columns in order of falling activation. `damp_percent` is the
    share of the Hessian's mean diagonal that is added to its diagonal. `sym: false` lets the range of a group begin
    and end where its weights do, which errs less; not every kernel reads it (Marlin does not). `mse`, if more than 0,
    searches the range of each group for the least error to that power (2.4 in GPTQ's own code): it loses less yet and
    takes twice as long.
    """

    bits: int = 4
    group_size: int = 128
    desc_act: bool = True
    damp_percent: float = 0.1
    sym: bool = True
    mse: float = 0.0

    @property
    def name(self) -> str:
        """Its folder and hub branch, such as `gptq-4bit-64g-actorder_True`."""
        return f"gptq-{self.bits}bit-{self.group_size}g-actorder_{self.desc_act}"


@dataclass(frozen=True, kw_only=True)
class TextSet:
    """Text that quantisation is calibrated on, or measured on: `samples` rows of `length` tokens, drawn with the seed.

    `path` is a file, a folder or a hub id. A .txt file holds paragraphs; other rows are conversations in any shape of
    the source `generic`, rendered with the checkpoint's chat template where it has one, or documents in a column
    `text`, or in the one that `column` names. Without `path` the recipe's own SFT rows are taken: those trained on for
    calibration, the held-out ones for measuring. Rows are packed end to end. `name` is what cards call the set.
    """

    path: str | None = None
    name: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str = "train"
    column: str | None = None
    samples: int = 128
    length: int = 2048


@dataclass(frozen=True, kw_only=True)
class HeldOut(TextSet):
    """Text that perplexity is measured on. No row of it is one of the calibration's.

    Without `path`, and without SFT rows in the recipe, it is drawn from what the calibration leaves of its own set.
    """

    samples: int = 32
    length: int = 1024


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Quantised variants of a checkpoint, each a folder of its own that transformers loads.

    `of` says which checkpoint; by default the last that the recipe trains, or `model.base` where it trains none.
    `default` names the variant that a release puts first, the first one unless given. `backends` are the kernels of
    GPTQModel with which each variant must generate, `auto` being what transformers takes by itself. `system` opens
    each conversation that has no system message. `compute_dtype` is what calibration and perplexity are computed in:
    `auto` is float32 on a processor and the checkpoint's own elsewhere; what is saved is not touched by it. The
    weights depend on the number of `threads` in the last bits; by default it is what torch takes on the machine.
    """

    variants: list[Variant] = field(default_factory=list)
    calibration: TextSet = field(default_factory=TextSet)
    heldout: HeldOut = field(default_factory=HeldOut)
    of: Literal["base", "sft", "instruct"] | None = None
    default: str | None = None
    backends: list[str] = field(default_factory=lambda: ["auto", "torch"])
    system: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_size: int = 4
    threads: int | None = None
