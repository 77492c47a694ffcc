"""Stopping on a signal, and the check of number types at the first step."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from posttrain.train.sharding import size_of


class StopOnSignal(TrainerCallback):
    """Ctrl-C and SIGTERM save a checkpoint at the end of the step and stop the training.

    Before the first step there is nothing to save, so until then they are left to whoever handled them before. A
    second Ctrl-C stops at once. With several processes, all stop at the same step, whichever got the signal.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self._previous:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        number = self.received or 0
        if args.world_size > 1:
            shared = torch.tensor(number, device=args.device)
            torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
            number = int(shared)
        if number:
            self.received = number
            control.should_save = True
            control.should_training_stop = True

    def restore(self) -> None:
        """Give the signals back to whoever handled them before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()


class AlreadyTrained(Exception):
    """Ends a training of which no step is left."""


class TakeNoStep(TrainerCallback):
    """Ends the training before its first step, when all that there is to go on from has been loaded.

    transformers' trainer, given a checkpoint of the last step, would take one more.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        raise AlreadyTrained


class CheckDtypes(TrainerCallback):
    """Asserts at the first step that what is trained, and its optimiser state, have the dtypes the recipe says.

    Args:
        trainable: The dtype of every weight that is trained.
        optimiser: The dtype of the moments, or None where the optimiser chooses its own (8-bit ones).
        say: Prints a line.
    """

    def __init__(self, trainable: torch.dtype, optimiser: torch.dtype | None, say: Callable[[str], None]) -> None:
        self.trainable = trainable
        self.optimiser = optimiser
        self.say = say
        self.lines: list[str] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.lines:
            return
        # DeepSpeed trains copies that it keeps itself; the model's own weights only compute.
        inner = getattr(kwargs["optimizer"], "optimizer", None)
        copies = getattr(inner, "fp32_partitioned_groups_flat", None)
        weights: Counter[tuple[str, torch.dtype]] = Counter()
        for number, copy in enumerate(copies or ()):
            self._require(f"group {number} of the optimiser", copy.dtype)
        for name, parameter in kwargs["model"].named_parameters():
            if parameter.requires_grad and copies is None:
                self._require(name, parameter.dtype)
            dtype = copies[0].dtype if copies and parameter.requires_grad else parameter.dtype
            weights["trained" if parameter.requires_grad else "frozen", dtype] += size_of(parameter)
        moments: Counter[torch.dtype] = Counter()
        for states in getattr(kwargs["optimizer"], "state", {}).values():
            for value in states.values():
                if isinstance(value, torch.Tensor) and value.numel() > 1:
                    moments[value.dtype] += value.numel()
        if self.optimiser is not None and set(moments) - {self.optimiser}:
            raise RuntimeError(f"the optimiser's state is in {sorted(map(str, moments))}, expected {self.optimiser}")
        self.lines = [f"{_millions(count)} weights {kind} in {dtype}" for (kind, dtype), count in weights.items()]
        self.lines += [f"{_millions(count)} numbers of optimiser state in {dtype}" for dtype, count in moments.items()]
        for line in self.lines:
            self.say(line)

    def _require(self, name: str, dtype: torch.dtype) -> None:
        if dtype != self.trainable:
            raise RuntimeError(f"{name} is trained in {dtype}, and model.trainable_dtype says {self.trainable}")


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f}M"
