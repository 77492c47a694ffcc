"""All that the project knows of TRL's and transformers' trainers; an upgrade of either touches this module.

The trainers get rows that are already token ids, so TRL's own preparation is skipped. What is overridden here:
evaluation (weighted by token or by pair, the same for any batch size and number of processes), throughput,
the check that DPO starts at ln 2, reference log-probabilities that are columns of the rows, and the side effects of TRL
that a build must not have (telemetry, model cards).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, is_peft_model
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch.utils.data import DataLoader
from transformers import TrainingArguments
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.models import prepare_deepspeed
from trl.trainer import dpo_trainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import add_fused_lm_head, use_adapter

from posttrain.recipe.schema import Cpt, Dpo, Recipe, Sft, Training
from posttrain.train import checkpoints
from posttrain.train.batch import accumulation_steps
from posttrain.train.dataset import IGNORED
from posttrain.train.model import uses_cpu
from posttrain.train.ref_store import CHOSEN, REJECTED
from posttrain.train.reference import tail_weight
from posttrain.train.scoring import score_tokens
from posttrain.train.sharding import requested, shard_on_processors, size_of
from posttrain.train.throughput import Throughput, flops_per_token

Config = TypeVar("Config", bound=TrainingArguments)
LN2 = math.log(2.0)
LN2_TOLERANCE = 1e-3
# By how many nats, a square root of a token, log-probabilities differ in bfloat16 between batches of other shapes: some
# four times what SmolLM2 135M showed. Stored ones come from another batch than the policy's.
HALF_PRECISION_NOISE = 0.12


def _common_arguments(
    settings: Training, recipe: Recipe, folder: Path, world_size: int, eval_on_start: bool
) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps,
        "per_device_train_batch_size": settings.per_device_train_batch_size,
        "per_device_eval_batch_size": settings.per_device_eval_batch_size,
        "gradient_accumulation_steps": accumulation_steps(settings, world_size),
        "max_length": settings.max_length,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "lr_scheduler_kwargs": dict(settings.lr_scheduler_kwargs),
        "warmup_steps": settings.warmup_ratio,  # transformers 5 reads a value below 1 as a share of the steps
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.adam_beta1,
        "adam_beta2": settings.adam_beta2,
        "max_grad_norm": settings.max_grad_norm,
        "optim": settings.optim,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "bf16": recipe.model.dtype == "bfloat16",
        "fp16": recipe.model.dtype == "float16",
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "logging_steps": settings.logging_steps,
        "logging_first_step": True,
        "eval_on_start": eval_on_start,
        "eval_strategy": "steps" if settings.eval_steps else "no",
        "eval_steps": settings.eval_steps or None,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": settings.save_total_limit,
        "use_cpu": uses_cpu(recipe.launch),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_nan_inf_filter": False,  # a loss that is not a number is shown, not replaced by the mean so far
        "disable_tqdm": True,  # posttrain.train.progress shows the progress
        "report_to": list(recipe.report_to),
        "project": recipe.name,  # of trackio; wandb reads WANDB_PROJECT, see posttrain.train.loop
        "run_name": f"{recipe.name}-{type(settings).__name__.lower()}",
        "ddp_find_unused_parameters": False,  # every trained weight takes part in every forward pass
        "remove_unused_columns": True,
    }


class _BuildTrainer:
    """What both trainers share. A mixin, placed before the TRL trainer."""

    args: TrainingArguments
    slots_per_row: int | None = None
    record: Mapping[str, Any] | None = None  # what the mark of a checkpoint says, see posttrain.train.checkpoints
    _saving = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.throughput = Throughput()
        self._flops: float | None = None
        model = kwargs["model"]
        named = model.named_parameters() if is_peft_model(model) else ()
        self._adapter = {name: value.detach().clone() for name, value in named if value.requires_grad}
        super().__init__(*args, **kwargs)

    def _send_telemetry(self) -> None:
        """Send nothing: a build does not report to anyone."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: TRL's card lists its tags in set order, so a checkpoint would differ from run to run."""

    def _get_output_dir(self, trial: Any) -> str:
        folder = Path(super()._get_output_dir(trial=trial))  # type: ignore[misc]
        return str(folder / checkpoints.SAVING if self._saving else folder)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, but not into a checkpoint of DeepSpeed, which holds its shards without gathering them."""
        if not (_internal_call and self.is_deepspeed_enabled):  # type: ignore[attr-defined]
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save apart, and put the checkpoint among the others once all processes have written all of it.

        transformers would remove the one before it as soon as it is written, whole or not.
        """
        state, accelerator = self.state, self.accelerator  # type: ignore[attr-defined]
        folder = Path(self._get_output_dir(trial))
        record = self.record or {"parts": {}, "world_size": self.args.world_size, "sharding": requested()}
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        self._saving = True
        try:
            with checkpoints.disk_problems_told(folder, state.global_step):
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
                accelerator.wait_for_everyone()
                if state.is_world_process_zero:
                    checkpoints.publish(folder, state.global_step, limit, record)
        finally:
            self._saving, self.args.save_total_limit = False, limit
        accelerator.wait_for_everyone()

    def restore_trainable_dtype(self, dtype: torch.dtype) -> None:
        """Put trained weights back into `dtype`: TRL turns the adapters of a quantised model to bfloat16.

        An adapter that was trained before gets the values that it came with, not those rounded.
        """
        for name, parameter in self.model.named_parameters():  # type: ignore[attr-defined]
            if parameter.requires_grad:
                parameter.data = self._adapter.get(name, parameter.data).to(parameter.device, dtype)
        self._adapter.clear()

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        self.throughput.start()  # runs on from the last step, and begins anew after an evaluation
        rows, length = inputs["input_ids"].shape
        self.throughput.count(inputs, rows * length if self.slots_per_row is None else self._slots(inputs))
        return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]

    def _slots(self, inputs: dict[str, Any]) -> int:
        # A packed batch is one row of several blocks laid end to end; each had room for `slots_per_row` tokens.
        assert self.slots_per_row is not None
        return int(self.args.per_device_train_batch_size) * self.slots_per_row

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self.throughput.stop()
        result = super()._maybe_log_save_evaluate(*args, **kwargs)  # type: ignore[misc]
        self.throughput.start()
        return result

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self.throughput.rates(self.accelerator, self._per_token()))  # type: ignore[attr-defined]
        super().log(logs, start_time)  # type: ignore[misc]

    def _per_token(self) -> float:
        if self._flops is None:
            model = self.accelerator.unwrap_model(self.model)  # type: ignore[attr-defined]
            embeddings = size_of(model.get_input_embeddings().weight)
            tied = model.config.get_text_config().tie_word_embeddings
            if self.is_deepspeed_enabled:  # type: ignore[attr-defined]
                parameters = sum(map(size_of, model.parameters()))
            else:
                parameters = model.num_parameters()  # which counts 4-bit weights as what they stand for
            matrices = parameters - (0 if tied else embeddings)
            self._flops = flops_per_token(matrices, model.config, getattr(self.args, "max_length", 0) or 0)
        return self._flops

    def _held_out(self, collator: Any) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the held-out batches of this process, on its device."""
        if not hasattr(self, "_held_out_loader"):
            loader = DataLoader(
                self.eval_dataset,  # type: ignore[attr-defined]
                batch_size=self.args.per_device_eval_batch_size,
                collate_fn=collator,
                shuffle=False,
            )
            self._held_out_loader = self.accelerator.prepare(loader)  # type: ignore[attr-defined]
        for batch in self._held_out_loader:
            yield self._prepare_inputs(batch)  # type: ignore[attr-defined]

    def _report(self, metrics: dict[str, float]) -> dict[str, float]:
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[attr-defined,has-type]
        return metrics


class SupervisedTrainer(_BuildTrainer, SFTTrainer):
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


class PreferenceTrainer(_BuildTrainer, DPOTrainer):
    """TRL's DPO trainer on rows of `prompt_ids`, `chosen_ids` and `rejected_ids`."""

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
        return loss

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
        collator = DataCollatorForPreference(pad_token_id=self.processing_class.pad_token_id)
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


def pair_log_probabilities(
    model: Any, inputs: Mapping[str, torch.Tensor], ld_alpha: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed log-probabilities of the chosen and of the rejected responses, as TRL's loss sums them.

    Args:
        model: A model with TRL's fused LM head.
        inputs: A batch of TRL's collator: the chosen responses of n pairs, then the rejected ones.
        ld_alpha: What the tokens beyond the shorter response's length count (LD-DPO, arXiv 2409.06411); None for all.

    Returns:
        Two tensors of shape (n,), in nats.
    """
    mask = inputs["completion_mask"]
    labels = inputs["input_ids"].masked_fill(mask == 0, IGNORED)
    rows = {name: inputs[name] for name in ("input_ids", "attention_mask")}
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

    Attributes:
        sharded: Whether every forward pass needs all processes at once.
        device: Where it computes.
    """

    def __init__(self, model: Any, settings: Dpo, recipe: Recipe, pad: int) -> None:
        # A trainer that ran before in this process left its own; each trainer resets it too.
        AcceleratorState._reset_state()
        shard_on_processors()
        half = {"bfloat16": "bf16", "float16": "fp16"}.get(recipe.model.dtype)
        self._accelerator = Accelerator(cpu=uses_cpu(recipe.launch), mixed_precision=half)
        self._collator = DataCollatorForPreference(pad_token_id=pad)
        self._ld_alpha = tail_weight(settings)
        kind = self._accelerator.distributed_type
        self.device = self._accelerator.device
        self.sharded = kind in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        model.eval()
        add_fused_lm_head(model.get_base_model() if is_peft_model(model) else model)
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
            pairs: Rows of `prompt_ids`, `chosen_ids` and `rejected_ids`; they are padded to one length.
        """
        batch = {name: value.to(self.device) for name, value in self._collator(list(pairs)).items()}
        with self._accelerator.autocast():
            sums = pair_log_probabilities(self._model, batch, self._ld_alpha)
        values: np.ndarray = torch.stack(sums, dim=1).float().cpu().numpy()
        return values


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


def _one_device(arguments: Config) -> Config:
    """Keep to one GPU a process: transformers would spread a single one over all it sees, which TRL refuses."""
    if arguments.device.type == "cuda":  # finding the device is what counts the GPUs
        arguments._n_gpu = min(arguments._n_gpu, 1)
    shard_on_processors()
    return arguments


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
    fields = _common_arguments(settings, recipe, folder, world_size, eval_on_start) | {
        "packing": packing != "none",
        "packing_strategy": "bfd" if packing == "none" else packing,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "loss_type": "nll",
    }
    config = _one_device(SFTConfig(**(fields | dict(settings.trainer))))
    trainer = SupervisedTrainer(args=config, **parts)
    if packing == "bfd":
        trainer.slots_per_row = settings.max_length
    return trainer


def preference_trainer(
    settings: Dpo, recipe: Recipe, *, folder: Path, world_size: int, eval_on_start: bool, **parts: Any
) -> PreferenceTrainer:
    """Make the trainer of DPO; arguments as `supervised_trainer`, and `ref_model` among the parts.

    Rows that have the columns `ref_chosen_logps` and `ref_rejected_logps` need no reference, and none is kept.
    """
    fields = _common_arguments(settings, recipe, folder, world_size, eval_on_start) | {
        "beta": settings.beta,
        "loss_type": list(settings.loss_type),
        "label_smoothing": settings.label_smoothing,
    }
    config = _one_device(DPOConfig(**(fields | dict(settings.trainer))))
    if CHOSEN not in parts["train_dataset"].column_names:
        return PreferenceTrainer(args=config, **parts)
    with _no_reference_model():
        trainer = PreferenceTrainer(args=config, **parts)
    assert trainer.ref_model is None, "stored log-probabilities and a reference model"
    trainer.precompute_ref_logps = True
    if is_peft_model(trainer.model) and "ref" in trainer.model.peft_config:
        trainer.model.delete_adapter("ref")  # TRL's frozen copy of an adapter that is trained on
    return trainer
