"""SFT and continued pretraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import add_fused_lm_head

from posttrain.recipe.schema import Cpt, Recipe, Sft
from posttrain.train.dataset import IGNORED
from posttrain.train.scoring import score_tokens
from posttrain.train.trl.arguments import common_arguments, one_device
from posttrain.train.trl.base import BuildTrainer
from posttrain.train.trl.head import scored_positions_only


class SupervisedTrainer(BuildTrainer, SFTTrainer):
    """TRL's SFT trainer on rows of `input_ids`, `labels` and, when packed, `seq_lengths`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        model = self.accelerator.unwrap_model(self.model)
        self._plain = self.args.loss_type == "nll" and self.label_smoother is None and not self.aux_loss_enabled
        if self._plain:  # TRL has it compute entropies as well, over the whole vocabulary
            add_fused_lm_head(model.get_base_model() if is_peft_model(model) else model)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss as TRL does, without its figures of entropy, accuracy and tokens.

        It reads those from the device after each micro-batch, for which a GPU stops; what is shown here is counted by
        `posttrain.train.throughput` and measured on the held-out rows.
        """
        if not self._plain or return_outputs or num_items_in_batch is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        with scored_positions_only():
            outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        loss = -outputs.log_probs.sum() / torch.as_tensor(num_items_in_batch).clamp(min=1)
        # The count is of all processes, and DDP takes the mean of their gradients.
        return loss * self.accelerator.num_processes if self.args.average_tokens_across_devices else loss

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the loss on the held-out rows: the mean over their trained tokens, in nats.

        Rows are padded, not packed, and each counts by its tokens, so that the figure does not depend on the
        batch size or the number of processes.
        """
        self.model.eval()
        collator = DataCollatorForLanguageModeling(pad_token_id=self.processing_class.pad_token_id)
        totals = torch.zeros(3, dtype=torch.float64)
        for inputs in self._held_out(collator):
            labels = inputs.pop("labels")
            log_probs, correct = score_tokens(self.model_wrapped(**inputs, use_cache=False).logits, labels)
            tokens = labels[:, 1:] != IGNORED
            rows = torch.stack([-log_probs.sum(1), correct.float().sum(1), tokens.float().sum(1)], dim=1)
            totals += self.accelerator.gather_for_metrics(rows).double().sum(0).cpu()
        loss, hits, count = totals.tolist()
        return self._report(
            {
                f"{metric_key_prefix}_loss": loss / max(count, 1.0),
                f"{metric_key_prefix}_token_accuracy": hits / max(count, 1.0),
                f"{metric_key_prefix}_tokens": count,
            }
        )


def supervised_trainer(
    settings: Sft | Cpt, recipe: Recipe, *, folder: Path, world_size: int, eval_on_start: bool, **parts: Any
) -> SupervisedTrainer:
    """Make the trainer of SFT or of continued pretraining.

    Args:
        settings: The stage's section of the recipe.
        recipe: The whole recipe.
        folder: Where checkpoints go.
        world_size: Processes that train together.
        eval_on_start: Whether to evaluate before the first step.
        parts: What TRL's trainer takes: `model`, `train_dataset`, `eval_dataset`, `processing_class`, `peft_config`.
    """
    packing = settings.packing if isinstance(settings, Sft) else "wrapped"
    fields = common_arguments(settings, recipe, folder, world_size, eval_on_start) | {
        "packing": packing != "none",
        "packing_strategy": "bfd" if packing == "none" else packing,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "loss_type": "nll",
    }
    config = one_device(SFTConfig(**(fields | dict(settings.trainer))))
    trainer = SupervisedTrainer(args=config, **parts)
    if packing == "bfd":
        trainer.slots_per_row = settings.max_length
    return trainer
