"""Which values a key may take beyond its type."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from posttrain.data.sources.base import Source
from posttrain.recipe import schema, schema_launch, schema_quantize, schema_release
from posttrain.recipe import schema_data as data
from posttrain.recipe import schema_evaluate as evaluate
from posttrain.recipe import schema_generate as generate


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


def _is_url(value: str) -> bool:
    return bool(re.fullmatch(r"https?://[^\s/]+(/\S*)?", value))


_POSITIVE = Rule(lambda value: 0 < value < math.inf, "more than 0")
_NOT_NEGATIVE = _at_least(0)
_ONE_OR_MORE = _at_least(1)
_SHARE = _between(0, 1)
_TEXT = Rule(lambda value: bool(value.strip()), "a name, not empty")
_FOLDER_NAME = Rule(lambda value: bool(re.fullmatch(r"[^\s/\\.][^\s/\\]*", value)), "one word that can name a folder")
_VARIABLE = Rule(
    lambda value: bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value)),
    "the name of the environment variable that holds the key, not the key itself",
)
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
    schema.TextSource: {
        **dict.fromkeys(("path", "config", "split", "column"), _TEXT),
        "share": Rule(lambda value: 0 < value <= 1, "more than 0 and at most 1"),
    },
    schema.Cpt: {"validation_fraction": _between(0, 1, above=False), "tokens": _ONE_OR_MORE},
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
    # Vectors at a right angle, which have nothing to do with each other, are at 2.
    data.SemanticDuplicates: {"model": _TEXT, "revision": _TEXT, "threshold": _between(0, 2, above=False)},
    data.EvalSet: {"path": _TEXT, "split": _TEXT, "column": _TEXT},
    data.Decontamination: {
        "threshold": Rule(lambda value: 0 < value <= 1, "more than 0 and at most 1"),
        "ngram": Rule(
            lambda value: all(type(n) is int and n > 0 for n in value.values()) and "default" in value,
            "whole numbers above 0 by language code, one of them called default",
        ),
    },
    generate.Sampling: {
        "temperature": _NOT_NEGATIVE,
        "top_p": Rule(lambda value: 0 < value <= 1, "more than 0 and at most 1"),
        "max_tokens": _ONE_OR_MORE,
        "stop": Rule(all, "a list of texts, none of them empty"),
    },
    generate.Teacher: {
        "model": _TEXT,
        "tokenizer": _TEXT,
        "revision": _TEXT,
        "base_url": Rule(_is_url, "an http:// or https:// address, such as http://localhost:8000/v1"),
        "api_key_env": _VARIABLE,
        **dict.fromkeys(("max_concurrency", "max_attempts", "batch_size"), _ONE_OR_MORE),
        "timeout": _POSITIVE,
    },
    generate.RewardModel: {
        "model": _TEXT,
        "revision": _TEXT,
        **dict.fromkeys(("batch_size", "max_length"), _ONE_OR_MORE),
    },
    generate.Cluster: {
        **dict.fromkeys(
            (
                "tasks",
                "workers",
                "max_model_len",
                "tensor_parallel",
                "pipeline_parallel",
                "nodes",
                "cpus",
                "mem_per_cpu_gb",
                "drain",
            ),
            _ONE_OR_MORE,
        ),
        **dict.fromkeys(("partition", "time", "qos", "venv_path"), _TEXT),
        "gpus": _NOT_NEGATIVE,
    },
    generate.Rollout: {
        # It names a folder.
        "name": Rule(lambda value: bool(re.fullmatch(r"[^\s/\\.][^\s/\\]*", value)), "one word that can name a folder"),
        "max_rows": _ONE_OR_MORE,
    },
    generate.Respond: {"n": _ONE_OR_MORE},
    generate.Category: {"name": _TEXT, "weight": _POSITIVE},
    generate.MagpieRollout: {"rows": _ONE_OR_MORE, "turns": _ONE_OR_MORE},
    generate.Rate: {
        "scales": Rule(
            lambda value: bool(value) and len(set(value)) == len(value), "a list of one or more scales, each once"
        ),
        **dict.fromkeys(("min_quality", "min_fluency"), _between(0, 5)),
        "retries": _NOT_NEGATIVE,
    },
    generate.Translate: {
        "min_language_score": _SHARE,
        "min_gzip_ratio": _SHARE,
        "max_length_ratio": _POSITIVE,
    },
    evaluate.EvalTask: {"name": _FOLDER_NAME, "max_samples": _ONE_OR_MORE},
    evaluate.TaskData: dict.fromkeys(("path", "revision", "config", "split"), _TEXT),
    evaluate.Ifeval: {"max_tokens": _ONE_OR_MORE},
    evaluate.MultipleChoice: {"fewshot_path": _TEXT, "num_fewshot": _NOT_NEGATIVE},
    evaluate.Translation: {
        **dict.fromkeys(("path", "revision", "split", "fewshot_path"), _TEXT),
        "num_fewshot": _NOT_NEGATIVE,
        "max_tokens": _ONE_OR_MORE,
    },
    evaluate.Perplexity: {"column": _TEXT, "max_length": _at_least(2)},
    evaluate.MtBench: {"against": _TEXT, "max_tokens": _ONE_OR_MORE},
    evaluate.AlpacaEval: {"max_tokens": _ONE_OR_MORE},
    evaluate.TaskGroup: {"max_tokens": _ONE_OR_MORE},
    evaluate.Baseline: {"name": _FOLDER_NAME, "path": _TEXT, "revision": _TEXT},
    evaluate.Evaluation: {
        "tasks": Rule(bool, "a list of one or more tasks"),
        **dict.fromkeys(("batch_size", "resamples"), _ONE_OR_MORE),
    },
    schema_release.Release: {
        **dict.fromkeys(("name", "org", "base_model", "license", "license_reason", "prompt"), _TEXT),
        "max_new_tokens": _ONE_OR_MORE,
    },
    schema_release.Signing: {"key": _TEXT, "password_env": _VARIABLE},
    schema_quantize.Variant: {
        # GPTQModel knows more widths, but transformers loads no others.
        "bits": Rule(lambda value: value in (2, 3, 4, 8), "2, 3, 4 or 8"),
        "group_size": Rule(
            lambda value: value in schema_quantize.GROUP_SIZES,
            f"one of {', '.join(map(str, schema_quantize.GROUP_SIZES))}, -1 being no groups",
        ),
        "damp_percent": Rule(lambda value: 0 < value < 1, "more than 0 and less than 1"),
        "mse": Rule(lambda value: 0 <= value <= 10, "0, or a power of at most 10 such as 2.4"),
    },
    schema_quantize.TextSet: {
        **dict.fromkeys(("path", "name", "config", "split", "column"), _TEXT),
        "samples": _ONE_OR_MORE,
        "length": _at_least(16),
    },
    schema_quantize.Quantize: {
        "backends": Rule(
            lambda value: bool(value) and set(value) <= set(schema_quantize.BACKENDS),
            f"a list of one or more of {', '.join(schema_quantize.BACKENDS)}",
        ),
        "system": _TEXT,
        **dict.fromkeys(("batch_size", "threads"), _ONE_OR_MORE),
    },
    schema.Launch: {"num_processes": _ONE_OR_MORE, "config": _TEXT},
    schema_launch.Slurm: {
        "nodes": _ONE_OR_MORE,
        "gpus_per_node": _NOT_NEGATIVE,
        **dict.fromkeys(("partition", "time", "account", "script"), _TEXT),
    },
    schema_launch.CpuJob: {"cpus": _ONE_OR_MORE, **dict.fromkeys(("partition", "time"), _TEXT)},
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
