"""DPO."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from trl import DPOConfig, DPOTrainer
from trl.trainer import dpo_trainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import use_adapter

from posttrain.recipe.schema import Dpo, Recipe
from posttrain.train.ref_store import CHOSEN, REJECTED
from posttrain.train.shared_prefix import FLEX
from posttrain.train.trl.arguments import common_arguments, one_device
from posttrain.train.trl.packed import PackedTrainer, keep_pairs
from posttrain.train.trl.reference import pair_log_probabilities
from posttrain.train.trl.shared_prefix import FLEX_MULTIPLE, PairCollator, add_shared_prefix, attention_of

LN2 = math.log(2.0)
LN2_TOLERANCE = 1e-3
# By how many nats, a square root of a token, log-probabilities differ in bfloat16 between batches of other shapes: some
# four times what SmolLM2 135M showed. Stored ones come from another batch than the policy's.
HALF_PRECISION_NOISE = 0.12


class PreferenceTrainer(PackedTrainer, DPOTrainer):
    """TRL's DPO trainer on rows of `prompt_ids`, `chosen_ids` and `rejected_ids`."""

    def share_prefixes(self, budget: int) -> None:
        """Compute each prompt once, with its responses behind it, in rows of up to `budget` tokens; to be called once.

        The same goes for evaluation, and for the reference if it is a model or the policy without its adapter.
        """
        model = self.accelerator.unwrap_model(self.model)
        flex = attention_of(model) == FLEX
        self.budget = budget
        self.packs = PairCollator(int(self.processing_class.pad_token_id), FLEX_MULTIPLE if flex else 1)
        self.data_collator = keep_pairs
        for each in (model, self.ref_model):
            if each is not None:
                add_shared_prefix(self.accelerator.unwrap_model(each))

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.state.global_step == 0 and self.model.training and list(self.loss_types) == ["sigmoid"]:
            value = float((loss[0] if return_outputs else loss).detach())
            if not abs(value - LN2) <= self._start_tolerance(inputs):
                why = (
                    "The stored reference log-probabilities are another model's, or dropout is on."
                    if self.precompute_ref_logps
                    else "They were loaded differently, or dropout is on."
                )
                raise RuntimeError(
                    f"DPO must start at a loss of ln 2 = {LN2:.4f}, because policy and reference are the same model "
                    f"at step 0; it starts at {value:.4f}. {why}"
                )
        return loss if self._weight == 1.0 else loss * self._weight

    def _start_tolerance(self, inputs: Mapping[str, torch.Tensor]) -> float:
        if not self.precompute_ref_logps or not (self.args.bf16 or self.args.fp16):
            return LN2_TOLERANCE
        tokens = 2 * float(inputs["completion_mask"].sum()) / len(inputs["completion_mask"])  # of a pair
        return LN2_TOLERANCE + float(self.beta) / 2 * HALF_PRECISION_NOISE * math.sqrt(tokens)

    def _log_probabilities(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return pair_log_probabilities(model, inputs, self.ld_alpha)

    def _reference(self) -> tuple[Any, contextlib.AbstractContextManager[Any]]:
        """Return the reference model and the context in which it is one (adapters off, or the frozen copy on)."""
        if self.ref_model is not None or not is_peft_model(self.model):
            return self.ref_model, contextlib.nullcontext()
        model = self.accelerator.unwrap_model(self.model)
        return self.model_wrapped, use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None)

    def _reference_log_probabilities(self, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        if self.precompute_ref_logps:
            return inputs[CHOSEN], inputs[REJECTED]
        reference, context = self._reference()
        with context:
            return self._log_probabilities(reference, inputs)

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return loss, reward accuracy and mean reward margin over the held-out pairs, each pair counting once.

        A reward is beta times the difference in summed log-probability between policy and reference, in nats; a
        pair is right when the chosen response's reward is the larger. The loss is the plain sigmoid one.
        """
        self.model.eval()
        collator = self.packs or DataCollatorForPreference(pad_token_id=self.processing_class.pad_token_id)
        gathered = []
        for inputs in self._held_out(collator):
            chosen, rejected = self._log_probabilities(self.model_wrapped, inputs)
            ref_chosen, ref_rejected = self._reference_log_probabilities(inputs)
            rewards = torch.stack([chosen - ref_chosen, rejected - ref_rejected], dim=1) * self.beta
            gathered.append(self.accelerator.gather_for_metrics(rewards).double().cpu())
        rewards = torch.cat(gathered) if gathered else torch.zeros(0, 2, dtype=torch.float64)
        margins = rewards[:, 0] - rewards[:, 1]
        values = {
            "loss": torch.nn.functional.softplus(-margins).mean(),
            "rewards/accuracies": (margins > 0).double().mean(),
            "rewards/margins": margins.mean(),
            "rewards/chosen": rewards[:, 0].mean(),
            "rewards/rejected": rewards[:, 1].mean(),
        }
        metrics = {f"{metric_key_prefix}_{key}": float(value) for key, value in values.items()}
        return self._report(metrics | {f"{metric_key_prefix}_pairs": float(len(margins))})


@contextlib.contextmanager
def _no_reference_model() -> Iterator[None]:
    """Keep TRL from loading a second model, which it does where it is given none and is not to precompute.

    Its own precomputing is no way round: it hashes all weights, and under FSDP it loads the model all the same.
    """
    load = dpo_trainer.create_model_from_path
    dpo_trainer.create_model_from_path = lambda *args, **kwargs: None
    try:
        yield
    finally:
        dpo_trainer.create_model_from_path = load


def preference_trainer(
    settings: Dpo,
    recipe: Recipe,
    *,
    folder: Path,
    world_size: int,
    eval_on_start: bool,
    packed: int | None = None,
    **parts: Any,
) -> PreferenceTrainer:
    """Make the trainer of DPO; arguments as `supervised_trainer`, and `ref_model` among the parts.

    Rows that have the columns `ref_chosen_logps` and `ref_rejected_logps` need no reference, and none is kept.

    Args:
        settings: The stage's section of the recipe.
        recipe: The whole recipe.
        folder: Where checkpoints go.
        world_size: Processes that train together.
        eval_on_start: Whether to evaluate before the first step.
        packed: Tokens of a row in which prompts are shared; None for TRL's padded batches.
        parts: What TRL's trainer takes.
    """
    fields = common_arguments(settings, recipe, folder, world_size, eval_on_start) | {
        "beta": settings.beta,
        "loss_type": list(settings.loss_type),
        "label_smoothing": settings.label_smoothing,
    }
    config = one_device(DPOConfig(**(fields | dict(settings.trainer))))
    stored = CHOSEN in parts["train_dataset"].column_names
    with _no_reference_model() if stored else contextlib.nullcontext():
        trainer = PreferenceTrainer(args=config, **parts)
    if stored:
        assert trainer.ref_model is None, "stored log-probabilities and a reference model"
        trainer.precompute_ref_logps = True
        if is_peft_model(trainer.model) and "ref" in trainer.model.peft_config:
            trainer.model.delete_adapter("ref")  # TRL's frozen copy of an adapter that is trained on
    if packed is not None:
        trainer.share_prefixes(packed)
    return trainer
