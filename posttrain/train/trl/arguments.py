"""What the fields of transformers' training arguments are, by the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import TrainingArguments

from posttrain.recipe.schema import Recipe, Training
from posttrain.train.batch import accumulation_steps
from posttrain.train.model import uses_cpu
from posttrain.train.sharding import shard_on_processors

Config = TypeVar("Config", bound=TrainingArguments)


def common_arguments(
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


def one_device(arguments: Config) -> Config:
    """Keep to one GPU a process: transformers would spread a single one over all it sees, which TRL refuses."""
    if arguments.device.type == "cuda":  # finding the device is what counts the GPUs
        arguments._n_gpu = min(arguments._n_gpu, 1)
    shard_on_processors()
    return arguments
