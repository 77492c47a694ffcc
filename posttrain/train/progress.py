"""What a person sees while a stage trains: a bar on a terminal, a line a log elsewhere."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_SHOWN = (
    ("loss", "loss {:.4f}"),
    ("rewards/accuracies", "accuracy {:.2f}"),
    ("rewards/margins", "margin {:.3f}"),
    ("learning_rate", "lr {:.2e}"),
    ("tokens_per_second", "{:,.0f} tokens/s"),
    ("mfu", "MFU {:.1%}"),
    ("peak_memory_gb", "{:.1f} GB"),
)


def describe(logs: dict[str, float]) -> str:
    """Put the figures of a training log on one line."""
    return "  ".join(form.format(float(logs[key])) for key, form in _SHOWN if key in logs)


class ShowProgress(TrainerCallback):
    """A progress bar with the latest figures, or plain lines where the output is not a terminal."""

    def __init__(self, stage: str, console: Console) -> None:
        self.stage = stage
        self.console = console
        self._bar: Progress | None = None
        self._task: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not (state.is_world_process_zero and self.console.is_terminal):
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task(self.stage, total=state.max_steps, completed=state.global_step, figures="")
        self._bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        if self._bar is not None:
            self._bar.update(self._task, figures=describe(logs))
        else:
            line = f"{self.stage}  step {state.global_step}/{state.max_steps}  {describe(logs)}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away; also when training failed."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
