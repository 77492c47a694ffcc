"""Log-probabilities of pairs under a model, as TRL's DPO loss sums them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, is_peft_model
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from trl.models import prepare_deepspeed
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

from posttrain.recipe.schema import Dpo, Recipe
from posttrain.train.dataset import IGNORED
from posttrain.train.model import uses_cpu
from posttrain.train.reference import tail_weight
from posttrain.train.sharding import shard_on_processors
from posttrain.train.shared_prefix import FLEX
from posttrain.train.trl.shared_prefix import (
    FLEX_MULTIPLE,
    PairCollator,
    add_shared_prefix,
    attention_of,
    packed_row,
)


def pair_log_probabilities(
    model: Any, inputs: Mapping[str, torch.Tensor], ld_alpha: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed log-probabilities of the chosen and of the rejected responses, as TRL's loss sums them.

    Args:
        model: A model with TRL's fused LM head.
        inputs: A batch of TRL's collator: the chosen responses of n pairs, then the rejected ones. With a packed row
            beside it, the row is what is computed.
        ld_alpha: What the tokens beyond the shorter response's length count (LD-DPO, arXiv 2409.06411); None for all.

    Returns:
        Two tensors of shape (n,), in nats.
    """
    mask = inputs["completion_mask"]
    labels = inputs["input_ids"].masked_fill(mask == 0, IGNORED)
    rows = {name: inputs[name] for name in ("input_ids", "attention_mask")} | packed_row(inputs)
    log_probs = model(**rows, labels=labels, fused_lm_head=True, use_cache=False).log_probs
    if ld_alpha is None:
        sums = log_probs.sum(dim=1)
    else:
        place = mask[:, 1:].cumsum(dim=1)
        shorter = mask[:, 1:].sum(dim=1).view(2, -1).amin(dim=0).repeat(2)
        tail = place > shorter[:, None]
        sums = log_probs.masked_fill(tail, 0.0).sum(dim=1) + ld_alpha * log_probs.masked_fill(~tail, 0.0).sum(dim=1)
    chosen, rejected = sums.chunk(2)
    return chosen, rejected


class ReferenceScorer:
    """Log-probabilities of pairs under a model, by the same arithmetic as in TRL's DPO trainer and without a trainer.

    Args:
        model: The reference; it is placed on the device, or in shards over the processes where accelerate's
            configuration says so.
        settings: The `dpo` section.
        recipe: The whole recipe.
        pad: The pad token's id.
        packed: Whether each prompt is computed once, as `add_shared_prefix` does.

    Attributes:
        sharded: Whether every forward pass needs all processes at once.
        device: Where it computes.
    """

    def __init__(self, model: Any, settings: Dpo, recipe: Recipe, pad: int, packed: bool) -> None:
        # A trainer that ran before in this process left its own; each trainer resets it too.
        AcceleratorState._reset_state()
        shard_on_processors()
        half = {"bfloat16": "bf16", "float16": "fp16"}.get(recipe.model.dtype)
        self._accelerator = Accelerator(cpu=uses_cpu(recipe.launch), mixed_precision=half)
        flex = packed and attention_of(model) == FLEX
        collator = PairCollator(pad, FLEX_MULTIPLE if flex else 1) if packed else DataCollatorForPreference(pad)
        self._collator: Callable[[list[Any]], dict[str, torch.Tensor]] = collator
        self._ld_alpha = tail_weight(settings)
        kind = self._accelerator.distributed_type
        self.device = self._accelerator.device
        self.sharded = kind in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        model.eval()
        add_fused_lm_head(model.get_base_model() if is_peft_model(model) else model)
        if packed:
            add_shared_prefix(model)
        if kind == DistributedType.DEEPSPEED:
            # The trainer would fill these in; DeepSpeed wants numbers, though nothing is trained here.
            sizes = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "gradient_clipping": 1.0}
            sizes["train_batch_size"] = self._accelerator.num_processes
            self._accelerator.state.deepspeed_plugin.deepspeed_config.update(sizes)
            self._model = prepare_deepspeed(model, self._accelerator)
        elif kind == DistributedType.FSDP:  # layer by layer, where TRL would gather the whole reference at once
            self._model = fsdp2_prepare_model(self._accelerator, model)
        else:
            self._model = self._accelerator.prepare_model(model, evaluation_mode=True)

    @torch.no_grad()
    def score(self, pairs: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return log-probabilities in nats, float32 of shape (pairs, 2): chosen, rejected.

        Args:
            pairs: Rows of `prompt_ids`, `chosen_ids` and `rejected_ids`; they are one batch.
        """
        batch = {name: value.to(self.device) for name, value in self._collator(list(pairs)).items()}
        with self._accelerator.autocast():
            sums = pair_log_probabilities(self._model, batch, self._ld_alpha)
        values: np.ndarray = torch.stack(sums, dim=1).float().cpu().numpy()
        return values
