"""Which fields TRL's configurations have, read from the installed sources: importing them would import torch."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from posttrain.recipe import schema
from posttrain.recipe.convert import describe_value
from posttrain.recipe.origins import Node
from posttrain.recipe.suggest import did_you_mean

CONFIGS = {"cpt": "SFTConfig", "sft": "SFTConfig", "dpo": "DPOConfig"}

# Where the dataclasses are, and their bases: (package, file, class).
_SOURCES = {
    "SFTConfig": ("trl", "trainer/sft_config.py", "SFTConfig"),
    "DPOConfig": ("trl", "trainer/dpo_config.py", "DPOConfig"),
    "_BaseConfig": ("trl", "trainer/base_config.py", "_BaseConfig"),
    "TrainingArguments": ("transformers", "training_args.py", "TrainingArguments"),
}

# Fields that another key of the recipe decides, with `{stage}` for the section; those that have the same name in the
# schema need no entry.
_OWNED = {
    "gradient_accumulation_steps": "{stage}.global_batch_size, from which accumulation follows",
    "auto_find_batch_size": "{stage}.per_device_train_batch_size",
    "warmup_steps": "{stage}.warmup_ratio",
    "eval_strategy": "{stage}.eval_steps",
    "eval_on_start": "{stage}.eval_steps",
    "save_strategy": "{stage}.save_steps",
    "logging_strategy": "{stage}.logging_steps",
    "bf16": "model.dtype",
    "fp16": "model.dtype",
    "model_init_kwargs": "the keys of model",
    "chat_template_path": "model.chat_template",
    "data_seed": "seed",
    "use_cpu": "launch.cpu",
    "local_rank": "launch.num_processes",
}
_OWNED_BY_SFT = {
    "packing_strategy": "sft.packing",
    "eval_packing": "sft.packing",
    "assistant_only_loss": "sft.loss_on",
    "completion_only_loss": "sft.loss_on",
}
_OWNED_BY_DPO = dict.fromkeys(("precompute_ref_log_probs", "precompute_ref_batch_size"), "dpo.reference")
_PREPARED = "trainers get rows of token ids, prepared beforehand"
_BLOCKS = "pretraining packs blocks of text and trains every token"
_FIXED_BY_CPT = dict.fromkeys(("packing", *_OWNED_BY_SFT), _BLOCKS)
# Fields that posttrain sets by itself, with the reason.
_FIXED = {
    "dataset_text_field": _PREPARED,
    "dataset_kwargs": _PREPARED,
    "remove_unused_columns": _PREPARED,
    "disable_tqdm": "posttrain shows the progress itself",
    "do_train": "the stage decides it",
    "do_eval": "the stage decides it",
    "do_predict": "the stage decides it",
    "resume_from_checkpoint": "a stage that was cut off is resumed by itself",
}


@cache
def trainer_fields(config: str) -> frozenset[str] | None:
    """Return the names of the fields of `SFTConfig` or `DPOConfig`, inherited ones included.

    Returns:
        None where the package that defines the class, or a base of it, is not installed.
    """
    package, file, name = _SOURCES[config]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        return None
    module = ast.parse(path.read_text(encoding="utf-8"))
    body = next(item for item in module.body if isinstance(item, ast.ClassDef) and item.name == name)
    fields = {
        item.target.id for item in body.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    for base in body.bases:
        if isinstance(base, ast.Name) and base.id in _SOURCES:
            inherited = trainer_fields(base.id)
            if inherited is None:
                return None
            fields |= inherited
    return frozenset(fields)


def passes_through(stage: str, key: str) -> bool:
    """Whether `key` may stand under `trainer` of a stage."""
    fields = trainer_fields(CONFIGS[stage])
    return fields is not None and key in fields and _own_key(stage, key) is None and key not in _FIXED


def check_trainer(stage: str, trainer: Node) -> list[str]:
    """Return what is wrong with the keys of `cpt.trainer`, `sft.trainer` or `dpo.trainer`."""
    if not isinstance(trainer.value, dict):
        return [f"{trainer.origin}: {stage}.trainer: must be a mapping, not {describe_value(trainer)}"]
    if not trainer.value:
        return []
    config = CONFIGS[stage]
    fixed = _FIXED | (_FIXED_BY_CPT if stage == "cpt" else {})
    fields = trainer_fields(config)
    if fields is None:
        return [f"{trainer.origin}: {stage}.trainer: its keys cannot be checked; install trl and transformers"]
    problems = []
    for key, node in trainer.value.items():
        at = f"{node.origin}: {stage}.trainer.{key}"
        own = _own_key(stage, key)
        if own is not None:
            problems.append(f"{at}: the recipe has a key of its own for this; use {own}")
        elif key in fixed:
            problems.append(f"{at}: cannot be set; {fixed[key]}")
        elif key not in fields:
            # All the fields are too many to list.
            hint = did_you_mean(key, sorted(fields))
            problems.append(f"{at}: not a field of {config}" + (f"; {hint}" if hint.startswith("did") else ""))
    return problems


def _own_key(stage: str, key: str) -> str | None:
    """Return the recipe's own key for a field of a trainer, if there is one."""
    section: Any = {"cpt": schema.Cpt, "sft": schema.Sft, "dpo": schema.Dpo}[stage]
    if key in section.__dataclass_fields__ and key != "trainer":
        return f"{stage}.{key}"
    if key in schema.Recipe.__dataclass_fields__:
        return key
    if key in schema.Model.__dataclass_fields__:
        return f"model.{key}"
    owned = _OWNED | {"sft": _OWNED_BY_SFT, "dpo": _OWNED_BY_DPO}.get(stage, {})
    return owned[key].format(stage=stage) if key in owned else None
