"""The work of each stage: adapters from a `Context` to the functions that know nothing of stages.

What is heavy is imported inside, because this module is loaded to print a plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posttrain.stages.context import Context


def data(context: Context) -> None:
    """Build the SFT and preference rows."""
    from posttrain.data.build import build
    from posttrain.data.mixture import mixture_table
    from posttrain.stages.tokens import length_tokenizer

    summary = build(
        context.recipe.data,
        context.seed,
        context.folder,
        title=context.recipe.name,
        work=context.work,
        tokenizer_file=length_tokenizer(context.recipe),
    )
    for entry, provenance in summary.provenance().items():
        context.provenance({"entry": entry, **provenance})
    for name, rows in summary.sets.items():
        for source in rows.sources:
            context.console.print(f"data  {name}  {source.describe()}", highlight=False, markup=False, soft_wrap=True)
        context.console.print(mixture_table(name, rows))
        counts = {"train": rows.train, "validation": rows.validation, "rejected": rows.rejected}
        context.report({f"{name}/{key}": count for key, count in counts.items()})


def tokenize_sft(context: Context) -> None:
    """Turn the SFT rows into tokens."""
    from posttrain.train import tokenize

    tokenize.tokenize_sft(context)


def tokenize_preference(context: Context) -> None:
    """Turn the preference rows into tokens."""
    from posttrain.train import tokenize

    tokenize.tokenize_preference(context)


def cpt(context: Context) -> None:
    """Pretrain the base model."""
    from posttrain.train.cpt import train_cpt

    train_cpt(context)


def sft(context: Context) -> None:
    """Fine-tune the base model."""
    from posttrain.train.sft import train_sft

    train_sft(context)


def dpo(context: Context) -> None:
    """Optimise the SFT checkpoint on preference pairs."""
    from posttrain.train.dpo import train_dpo

    train_dpo(context)
