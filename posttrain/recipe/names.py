"""Names that transformers and TRL look up only when a trainer is made: optimisers, schedules and losses."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

# The usual ones, so that most recipes are checked without reading a library's source.
_USUAL = {
    "optim": ("adamw_torch", "adamw_torch_fused"),
    "lr_scheduler_type": ("linear", "cosine", "constant", "constant_with_warmup"),
}
_ENUMS = {"optim": ("training_args.py", "OptimizerNames"), "lr_scheduler_type": ("trainer_utils.py", "SchedulerType")}
LOSSES = (
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
)


def is_known(key: str, name: str) -> bool:
    """Say whether `name` can be the value of `optim` or `lr_scheduler_type`."""
    return name in _USUAL[key] or name in names(key)


@cache
def names(key: str) -> tuple[str, ...]:
    """Return the values of transformers' enumeration for a key, read from its source without importing it."""
    file, enumeration = _ENUMS[key]
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return _USUAL[key]
    module = ast.parse((Path(spec.submodule_search_locations[0]) / file).read_text(encoding="utf-8"))
    body = next(item for item in module.body if isinstance(item, ast.ClassDef) and item.name == enumeration).body
    values = (item.value for item in body if isinstance(item, ast.Assign))
    return tuple(value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str))
