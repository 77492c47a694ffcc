"""What the trainers of SFT and DPO share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from posttrain.train import checkpoints
from posttrain.train.sharding import requested, size_of
from posttrain.train.throughput import Throughput, flops_per_token


class BuildTrainer:
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
        self._count(inputs)
        return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]

    def _count(self, inputs: dict[str, Any]) -> None:
        rows, length = inputs["input_ids"].shape
        self.throughput.count(inputs, rows * length if self.slots_per_row is None else self._slots(inputs))

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
