"""One training run of a stage: resume, train, evaluate, and say what came out."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import Interrupted, UserError
from posttrain.train.checkpoints import at_the_end, last_checkpoint
from posttrain.train.model import training_device
from posttrain.train.sharding import requested

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from posttrain.recipe.schema import Training
    from posttrain.stages.context import Context

LOGS = "logs"
HISTORY = "history.json"  # the trainer's log, with times in it, so it is left out of the digest
# Drawn from the log. The first mean that a resumed run logs is over the steps since it was resumed only.
CURVES = "*.png"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run left: its log history, and the held-out figures before and after."""

    history: list[dict[str, Any]]
    before: dict[str, float]
    after: dict[str, float]
    totals: dict[str, float]
    steps: int

    def metrics(self) -> dict[str, Any]:
        """Return the figures for the manifest; names of held-out ones say `before` or `after`."""
        held_out = {
            f"{when}/{key.removeprefix('eval_')}": round(value, 6)
            for when, values in (("before", self.before), ("after", self.after))
            for key, value in values.items()
        }
        return {"steps": self.steps, **self.totals, **held_out}


def find_checkpoint(context: Context) -> Path | None:
    """Return the checkpoint that a stage goes on from, the same in every process; every process must call it.

    Raises:
        UserError: If what is there was saved by another recipe.
    """
    if not context.resume:
        return None
    record = checkpoint_record(context)
    if context.world_size == 1:
        return last_checkpoint(context.work, record, lambda line: say(context, line))
    import torch

    training_device(context.recipe.launch)  # joins the others
    told: list[Any] = [None, None]
    if context.rank == 0:
        try:
            told[0] = last_checkpoint(context.work, record, lambda line: say(context, line))
        except UserError as error:
            told[1] = error.problems
    torch.distributed.broadcast_object_list(told, src=0)
    checkpoint, problems = told
    if problems is not None:
        raise UserError(problems)
    return None if checkpoint is None else Path(checkpoint)


def checkpoint_record(context: Context) -> dict[str, Any]:
    """Return what a stage's checkpoints say of how they were made, see `posttrain.train.checkpoints.publish`."""
    return {"parts": context.parts, "world_size": context.world_size, "sharding": requested()}


_CHATTY = (
    "bitsandbytes.backends.cpu.ops",
    "torch.utils._pytree",
    "torchao",
    "transformers.modeling_utils",
    "transformers.trainer",
    "transformers.trainer_utils",
    "transformers.utils.quantization_config",
)
_NO_NEWS = (
    "`act_group_aware` has been auto-disabled",  # as a variant with act order has it
    "`loss_type=None` was set in the config",  # by transformers itself, in what GPTQModel saves
    "kernels-community",  # a kernel package that bitsandbytes can do without
    "missing keys in the checkpoint model loaded: ['lm_head.weight']",  # it is tied to the embedding, which is there
    "new PAD/BOS/EOS tokens that differ from the model config",  # that is what `equip` is for
    "torchao/_C",  # kernels for other machines, which torchao, brought by GPTQModel, tries to load
    "is an Enum subclass and is now natively supported",  # torchao to torch, about itself
    "mtime may not be reliable",  # checkpoints are ordered by their step then, as they should be
)


def _is_news(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _NO_NEWS)


def quiet_libraries() -> None:
    """Turn off the bars and hints of the libraries that would break into the stage's own output."""
    for name in _CHATTY:
        logging.getLogger(name).addFilter(_is_news)
    # transformers has renamed a field that TRL 1.16 still sets
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
    # an adapter records its base as the recipe names it, where PEFT looks for a vocabulary that nobody changes
    warnings.filterwarnings("ignore", message="Could not find a config file in", category=UserWarning)
    # the torch kernel is asked for on purpose; all else is as the checkpoint says
    warnings.filterwarnings("ignore", message="You passed `quantization_config` or equivalent", category=UserWarning)
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()


def prepare_trackers(context: Context) -> None:
    """Give the trackers of `report_to` their project and folder, unless the environment names others.

    TensorBoard's files go to `logs/STAGE` in the output folder, beside the stages, because they are no part of what a
    stage builds.
    """
    recipe = context.recipe
    if "tensorboard" in recipe.report_to:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(Path(recipe.output_dir) / LOGS / context.stage)
    os.environ.setdefault("WANDB_PROJECT", recipe.name)


def say(context: Context, text: str) -> None:
    """Print a line of a stage's output, from the main process."""
    context.console.print(f"{context.stage}  {text}", highlight=False, markup=False, soft_wrap=True)


def train(
    context: Context,
    settings: Training,
    make: Callable[..., Any],
    *,
    rows: Dataset,
    held_out: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    **models: Any,
) -> tuple[Any, Outcome]:
    """Make a stage's trainer, train from the last checkpoint there is, and evaluate; every process calls it.

    Args:
        context: The stage's context; the main process writes `history.json` into its folder.
        settings: The stage's section of the recipe.
        make: `supervised_trainer` or `preference_trainer` of `posttrain.train.trl`.
        rows: The encoded training rows.
        held_out: The encoded held-out rows; with none, nothing is evaluated.
        tokenizer: The tokenizer, equipped.
        models: What else the trainer takes: `model`, `ref_model`, `peft_config`.

    Returns:
        The trainer, whose model is trained, and the outcome.

    Raises:
        Interrupted: If a signal stopped the training; the checkpoint has been saved.
    """
    resume = find_checkpoint(context)
    trainer = make(
        settings,
        context.recipe,
        folder=context.work,
        world_size=context.world_size,
        eval_on_start=bool(len(held_out)) and resume is None,
        train_dataset=rows,
        eval_dataset=held_out if len(held_out) else None,
        processing_class=tokenizer,
        **models,
    )
    trainer.record = checkpoint_record(context)
    outcome = _fit(trainer, context, settings, resume)
    if "wandb" in context.recipe.report_to and trainer.is_world_process_zero():
        import wandb

        wandb.finish()  # or the next stage would log into this one's run
    return trainer, outcome


def _fit(trainer: Any, context: Context, settings: Training, resume: Path | None) -> Outcome:
    """Train and evaluate.

    The first evaluation, before any step, is part of the trainer's own start and is found in the log history, also
    that of a run that was resumed.
    """
    import torch
    from transformers import PrinterCallback

    from posttrain.train.callbacks import AlreadyTrained, CheckDtypes, StopOnSignal, TakeNoStep
    from posttrain.train.progress import ShowProgress

    trainable = getattr(torch, context.recipe.model.trainable_dtype)
    trainer.restore_trainable_dtype(trainable)
    stop, progress = StopOnSignal(), ShowProgress(context.stage, context.console)
    moments = trainable if settings.optim.startswith("adamw_torch") else None
    dtypes = CheckDtypes(trainable, moments, lambda line: say(context, line))
    trainer.remove_callback(PrinterCallback)
    for callback in (stop, progress, dtypes, *([TakeNoStep()] if resume and at_the_end(resume) else [])):
        trainer.add_callback(callback)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        say(context, f"weights in shards over {context.world_size} processes ({requested()})")
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except AlreadyTrained:
        say(context, f"all {trainer.state.max_steps} steps were taken before")
    finally:
        progress.close()
        stop.restore()
    trainer.throughput.rates(trainer.accelerator, None)  # counts what came after the last log
    state = trainer.state
    if stop.received is not None:
        reached = f"step {state.global_step} of {state.max_steps}"
        raise Interrupted(f"{context.stage} stopped at {reached} and saved", stop.received)
    context.reached = "after its last step, which is saved"
    after = trainer.evaluate() if trainer.eval_dataset is not None else {}
    evaluated = (entry for entry in state.log_history if "eval_loss" in entry)
    before: dict[str, float] = next((entry for entry in evaluated if entry["step"] == 0), {})
    if trainer.is_world_process_zero():
        (context.folder / HISTORY).write_text(json.dumps(state.log_history, indent=1, sort_keys=True) + "\n")
    context.leave_out_of_digest(HISTORY, CURVES)
    return Outcome(
        history=state.log_history,
        before={key: value for key, value in before.items() if key in after},
        after=after,
        totals=trainer.throughput.summary(),
        steps=state.global_step,
    )
