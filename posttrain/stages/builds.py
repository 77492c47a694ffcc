"""The work of each stage: adapters from a `Context` to the functions that know nothing of stages.

What is heavy is imported inside, because this module is loaded to print a plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posttrain.stages.context import Context


def generate(context: Context) -> None:
    """Have the models of the recipe write rows."""
    from dataclasses import asdict
    from pathlib import Path

    from posttrain.data.generate.build import Models, build, describe
    from posttrain.stages.generate import ANSWERS

    recipe, answers = context.recipe, Path(context.recipe.output_dir) / ANSWERS
    models = Models(recipe.teacher, recipe.judge, recipe.reward)
    if recipe.cluster is None:
        made = build(recipe.generate, models, context.seed, context.folder, answers)
        summaries = {name: entry.summary for name, entry in made.items()}
        context.report({f"{name}/{key}": value for name, entry in made.items() for key, value in entry.asked.items()})
    else:
        from posttrain.data.generate.cluster import Work, generate
        from posttrain.errors import Submitted

        work = Work(tuple(recipe.generate), models, context.seed, context.folder, answers, recipe.cluster)
        gathered = generate(work)
        if gathered is None:
            raise Submitted(f"generate: {recipe.cluster.tasks} tasks; their logs are in {work.logs}")
        summaries = gathered
    for name, summary in summaries.items():
        text = f"generate  {describe(name, summary)}"
        context.console.print(text, highlight=False, markup=False, soft_wrap=True)
        context.report({f"{name}/{key}": value for key, value in asdict(summary).items()})


def data(context: Context) -> None:
    """Build the SFT and preference rows."""
    from posttrain.data.build import build
    from posttrain.data.mixture import mixture_table
    from posttrain.stages.generate import with_folders
    from posttrain.stages.tokens import length_tokenizer

    summary = build(
        with_folders(context.recipe.data, context.inputs.get("generate")),
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


def tokenize_cpt(context: Context) -> None:
    """Turn texts with shares into blocks of tokens, in the order in which they are trained on."""
    from posttrain.train.tokenize_text import tokenize_text

    tokenize_text(context)


def cpt(context: Context) -> None:
    """Pretrain the base model."""
    from posttrain.train.cpt import train_cpt

    train_cpt(context)


def sft(context: Context) -> None:
    """Fine-tune the base model."""
    from posttrain.train.sft import train_sft

    train_sft(context)


def ref_logps(context: Context) -> None:
    """Compute the reference log-probabilities of the preference pairs."""
    from posttrain.train.ref_logps import compute_ref_logps

    compute_ref_logps(context)


def dpo(context: Context) -> None:
    """Optimise the SFT checkpoint on preference pairs."""
    from posttrain.train.dpo import train_dpo

    train_dpo(context)


def quantize(context: Context) -> None:
    """Make quantised variants of a checkpoint."""
    from posttrain.stages.quantize import build_variants

    build_variants(context)


def evaluate(context: Context) -> None:
    """Measure the models."""
    from posttrain.stages.evaluate import measure

    measure(context)


def release(context: Context) -> None:
    """Write the folders that are published."""
    from posttrain.release.build import build

    build(context)
