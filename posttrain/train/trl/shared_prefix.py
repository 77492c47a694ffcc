"""A model call that computes each prompt of a batch of pairs once, below TRL's losses.

`add_shared_prefix` puts itself around TRL's fused LM head. A call that has a packed row beside the padded batch
computes the row alone, and gives every per-token field back in the padded layout, (2 · pairs, length - 1), so that all
that TRL does with it stays as it is.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from accelerate.utils import is_peft_model
from trl.trainer.dpo_trainer import DataCollatorForPreference

from posttrain.train.dataset import IGNORED
from posttrain.train.pairs import IDS, KEYS, NOTHING, PARTS, POSITIONS, TARGETS, dense_mask, lay_out, sees
from posttrain.train.shared_prefix import FLEX
from posttrain.train.trl.head import scored_positions_only

# FlexAttention is compiled for each length; this many tokens apart, few lengths occur.
FLEX_MULTIPLE = 512


@dataclass(frozen=True)
class PairCollator:
    """TRL's padded batch of pairs and, beside it, the same pairs as a packed row.

    Attributes:
        pad: The pad token's id.
        multiple: The row is padded to a multiple of so many tokens.
    """

    pad: int
    multiple: int = 1

    def __call__(self, pairs: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return what TRL's collator does, and the packed row of `posttrain.train.pairs.lay_out`."""
        padded: dict[str, torch.Tensor] = DataCollatorForPreference(pad_token_id=self.pad)(list(pairs))
        return padded | lay_out(pairs, padded["input_ids"].shape[1], self.pad, self.multiple)


def packed_row(inputs: Any) -> dict[str, torch.Tensor]:
    """Return the packed row of a batch, if it has one."""
    return {name: inputs[name] for name in KEYS if name in inputs}


def add_shared_prefix(model: Any) -> None:
    """Have a model with TRL's fused LM head take packed rows; other calls go on as before.

    Args:
        model: A causal language model, or a PEFT model around one, whose attention takes a mask of four dimensions.
    """
    inner = model.get_base_model() if is_peft_model(model) else model
    padded_forward = inner.forward

    @functools.wraps(type(inner).forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        row = {name: kwargs.pop(name) for name in KEYS if name in kwargs}
        if not row or not kwargs.get("fused_lm_head"):
            return padded_forward(*args, **kwargs)
        return _score_row(padded_forward, row, kwargs, attention_of(self))

    inner.forward = types.MethodType(forward, inner)


def attention_of(model: Any) -> str:
    """Return which implementation of attention a model runs."""
    return str(model.config.get_text_config()._attn_implementation)


def _score_row(fused: Any, row: dict[str, torch.Tensor], kwargs: dict[str, Any], attention: str) -> Any:
    labels = kwargs.pop("labels")[:, 1:]
    kwargs = {name: value for name, value in kwargs.items() if name not in ("input_ids", "attention_mask")}
    targets = row[TARGETS]
    scored = targets != NOTHING
    successors = labels.reshape(-1)[targets.clamp(min=0)].masked_fill(~scored, IGNORED)
    with scored_positions_only():
        outputs = fused(
            input_ids=row[IDS],
            position_ids=row[POSITIONS],
            attention_mask=_block_mask(row[PARTS]) if attention == FLEX else dense_mask(row[PARTS]),
            shift_labels=successors,
            **kwargs,
        )
    places = targets[scored]

    def padded(values: Any) -> Any:
        if not isinstance(values, torch.Tensor) or values.shape != targets.shape:
            return values
        return values.new_zeros(labels.numel()).index_put((places,), values[scored]).view(labels.shape)

    return replace(outputs, **{field.name: padded(getattr(outputs, field.name)) for field in fields(outputs)})


def _block_mask(parts: torch.Tensor) -> Any:
    """Return `dense_mask` as FlexAttention wants it."""
    from torch.nn.attention.flex_attention import create_block_mask

    def mask_mod(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return sees(parts[0], query, key)

    make = _compiled() if parts.device.type == "cuda" else create_block_mask
    length = parts.shape[1]
    return make(mask_mod, None, None, length, length, device=str(parts.device))


@functools.cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    return torch.compile(create_block_mask)  # uncompiled it makes a number for each pair of places first
