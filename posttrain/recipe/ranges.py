"""Which values a key may take beyond its type."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from posttrain.data.sources.base import Source
from posttrain.recipe import schema
from posttrain.recipe import schema_data as data


@dataclass(frozen=True)
class Rule:
    """`holds` says whether a value will do; `wanted` completes the sentence `must be ...`."""

    holds: Callable[[Any], bool]
    wanted: str


def _at_least(least: int) -> Rule:
    return Rule(lambda value: least <= value < math.inf, f"{least} or more")


def _between(low: float, high: float, above: bool = True) -> Rule:
    """Both ends included, or with `above=False` the upper one left out."""
    if above:
        return Rule(lambda value: low <= value <= high, f"between {low:g} and {high:g}")
    return Rule(lambda value: low <= value < high, f"at least {low:g} and below {high:g}")


def _is_module_choice(value: str | list[str]) -> bool:
    if isinstance(value, list):
        return bool(value) and all(name.strip() for name in value)
    if not value.strip() or ("," in value and not re.search(r"[(\[{|]", value)):
        return False  # peft would take `q_proj,v_proj` for a pattern that nothing matches
    try:
        re.compile(value)
    except re.error:
        return False
    return True


_POSITIVE = Rule(lambda value: 0 < value < math.inf, "more than 0")
_NOT_NEGATIVE = _at_least(0)
_ONE_OR_MORE = _at_least(1)
_SHARE = _between(0, 1)
_TEXT = Rule(lambda value: bool(value.strip()), "a name, not empty")
_MODULES = Rule(_is_module_choice, "all-linear, a list of module names, or one regular expression")

RULES: dict[type, dict[str, Rule]] = {
    schema.NewModel: {
        **dict.fromkeys(
            (
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "max_position_embeddings",
            ),
            _ONE_OR_MORE,
        ),
        # 256 bytes are the least that a byte-level BPE starts from.
        "vocab_size": _at_least(257),
        "rope_theta": _POSITIVE,
    },
    schema.Model: {"base": _TEXT, "tokenizer": _TEXT, "chat_template": _TEXT, "revision": _TEXT},
    schema.Lora: {
        "r": _ONE_OR_MORE,
        "alpha": _ONE_OR_MORE,
        "dropout": _between(0, 1, above=False),
        "target_modules": _MODULES,
    },
    schema.Training: {
        "num_train_epochs": _POSITIVE,
        "max_steps": Rule(lambda value: value == -1 or value >= 1, "-1 (by epochs) or 1 or more"),
        "global_batch_size": _ONE_OR_MORE,
        "per_device_train_batch_size": _ONE_OR_MORE,
        "per_device_eval_batch_size": _ONE_OR_MORE,
        "learning_rate": _POSITIVE,
        "lr_scheduler_type": _TEXT,
        "warmup_ratio": _between(0, 1, above=False),  # transformers reads 1 as one step
        "weight_decay": _NOT_NEGATIVE,
        "adam_beta1": _between(0, 1, above=False),
        "adam_beta2": _between(0, 1, above=False),
        "max_grad_norm": _NOT_NEGATIVE,
        "optim": _TEXT,
        "max_length": _ONE_OR_MORE,
        "logging_steps": _ONE_OR_MORE,
        "eval_steps": _NOT_NEGATIVE,
        "save_steps": _ONE_OR_MORE,
        "save_total_limit": _ONE_OR_MORE,
    },
    schema.TextSource: {"path": _TEXT, "split": _TEXT, "column": _TEXT},
    schema.Cpt: {"validation_fraction": _between(0, 1, above=False)},
    schema.Dpo: {
        "beta": _POSITIVE,
        "label_smoothing": _between(0, 0.5, above=False),
        "loss_type": Rule(lambda value: bool(value) and all(value), "a list of one or more losses"),
    },
    schema.Validation: {"fraction": _between(0, 1, above=False), "max_rows": _NOT_NEGATIVE},
    schema.Data: {"num_proc": _ONE_OR_MORE},
    data.LanguageFilter: {"crop": _ONE_OR_MORE, "min_letters": _ONE_OR_MORE},
    data.LengthFilter: dict.fromkeys(
        ("min_prompt", "max_prompt", "min_response", "max_response", "max_tokens"), _ONE_OR_MORE
    ),
    data.RepetitionFilter: {"ngram": _ONE_OR_MORE, "max_share": _SHARE, "min_words": _ONE_OR_MORE},
    data.TruncationFilter: {"min_chars": _NOT_NEGATIVE},
    data.NearDuplicates: {
        "threshold": Rule(lambda value: 0 < value <= 1, "more than 0 and at most 1"),
        "permutations": Rule(lambda value: 16 <= value <= 1024, "between 16 and 1024"),
        "ngram": _ONE_OR_MORE,
    },
    data.EvalSet: {"path": _TEXT, "split": _TEXT, "column": _TEXT},
    data.Decontamination: {
        "threshold": Rule(lambda value: 0 < value <= 1, "more than 0 and at most 1"),
        "ngram": Rule(
            lambda value: all(type(n) is int and n > 0 for n in value.values()) and "default" in value,
            "whole numbers above 0 by language code, one of them called default",
        ),
    },
    schema.Launch: {"num_processes": _ONE_OR_MORE, "config": _TEXT},
    schema.Recipe: {
        "name": Rule(lambda value: bool(re.fullmatch(r"[^\s/\\.][^\s/\\]*", value)), "one word that can name a folder"),
        "output_dir": _TEXT,
        # numpy seeds with 32 bits.
        "seed": Rule(lambda value: 0 <= value < 2**32, "between 0 and 4294967295"),
    },
    Source: {
        "path": _TEXT,
        "name": _TEXT,
        "split": _TEXT,
        "fraction": _SHARE,
        "max_rows": _ONE_OR_MORE,
        "repeat": _POSITIVE,
    },
}


def rule_for(owner: type, key: str) -> Rule | None:
    """Return the rule of a key of a section, its own or one that the section inherits."""
    return next((RULES[base][key] for base in owner.__mro__ if key in RULES.get(base, {})), None)
