"""The cpt stage: continued pretraining on plain text, or the first training of a new small model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.train.batch import steps_asked
from posttrain.train.curves import draw_loss
from posttrain.train.finish import save_checkpoint
from posttrain.train.loop import prepare_trackers, quiet_libraries, say, train
from posttrain.train.model import check_embedding, load_model, new_model
from posttrain.train.text import blocks, load_text
from posttrain.train.token_blocks import load_blocks
from posttrain.train.tokenize_text import TOKENIZER, describe
from posttrain.train.tokenizer import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from posttrain.recipe.schema import Cpt
    from posttrain.stages.context import Context

_LISTED = 10  # documents set aside that are named in the output


@dataclass(frozen=True)
class _Prepared:
    """What is trained on.

    Attributes:
        settings: The section of the recipe, its `max_steps` settled.
        tokenizer: The tokenizer.
        rows: Blocks to train on.
        held_out: Held-out blocks.
        figures: What is reported about them.
    """

    settings: Cpt
    tokenizer: PreTrainedTokenizerBase
    rows: Dataset
    held_out: Dataset
    figures: dict[str, Any]


def train_cpt(context: Context) -> None:
    """Train the base checkpoint; every process calls it.

    Raises:
        UserError: If there is not text enough for one global batch, or the model and its tokenizer do not fit.
        Interrupted: If a signal stopped the training.
    """
    quiet_libraries()  # before TRL is imported
    prepare_trackers(context)
    from posttrain.train.trl import supervised_trainer

    recipe, settings = context.recipe, context.recipe.cpt
    assert settings is not None
    prepared = _mapped(context, settings) if "tokenize-cpt" in context.inputs else _in_memory(context, settings)
    if recipe.model.new is not None:
        model = new_model(recipe.model.new, prepared.tokenizer, recipe.seed)
    else:
        assert recipe.model.base is not None
        model = load_model(recipe.model.base, recipe.model, dtype=recipe.model.trainable_dtype)
        check_embedding(model, prepared.tokenizer, recipe.model.base)
    trainer, outcome = train(
        context,
        prepared.settings,
        supervised_trainer,
        rows=prepared.rows,
        held_out=prepared.held_out,
        tokenizer=prepared.tokenizer,
        model=model,
    )
    differences = save_checkpoint(
        trainer,
        context.folder,
        model=recipe.model,
        lora=None,
        base=recipe.model.base or "",
        base_name=recipe.model.base or "",
        tokenizer=prepared.tokenizer,
        template=None,
        probe=[],
    )
    if context.rank == 0:
        draw_loss(outcome.history, context.folder / "loss.png", f"{recipe.name}: continued pretraining")
    context.report(outcome.metrics() | differences | prepared.figures)


def _of_base(context: Context) -> PreTrainedTokenizerBase:
    model = context.recipe.model
    assert model.base is not None
    tokenizer = load_tokenizer(model.tokenizer or model.base, model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # blocks are full, so nothing is padded
    return tokenizer


def _mapped(context: Context, settings: Cpt) -> _Prepared:
    """Map the blocks of a mixture. They are trained on in the order in which they were laid out.

    A checkpoint's number of steps is its place in that order, so a run that is resumed goes on with the next block.
    """
    model, folder = context.recipe.model, context.inputs["tokenize-cpt"]
    tokenizer = _of_base(context) if model.new is None else load_tokenizer(folder / TOKENIZER, model)
    rows, held_out, about = load_blocks(folder)
    for line in describe(about):
        say(context, line)
    settled = replace(
        settings,
        num_train_epochs=1.0,
        max_steps=len(rows) // settings.global_batch_size,
        trainer={**settings.trainer, "train_sampling_strategy": "sequential"},
    )
    sources = {
        f"{index}/{key}": source[key]
        for index, source in enumerate(about["sources"])
        for key in ("path", "share", "realised_share", "trained_tokens", "epochs")
    }
    return _Prepared(settled, tokenizer, rows, held_out, {"rows": len(rows), **sources})


def _in_memory(context: Context, settings: Cpt) -> _Prepared:
    """Read all documents, shuffle them, and cut them into blocks, which are shuffled again in every epoch."""
    recipe = context.recipe
    corpus = load_text(settings, recipe.seed)
    if recipe.model.new is not None:
        tokenizer = train_tokenizer(corpus.train, recipe.model.new.vocab_size, recipe.model.chat_template)
    else:
        tokenizer = _of_base(context)
    rows, left_over = blocks(corpus.train, tokenizer, settings.max_length, recipe.seed)
    held_out, _ = blocks(corpus.held_out, tokenizer, settings.max_length, recipe.seed)
    if len(rows) < settings.global_batch_size:
        raise UserError(
            f"cpt.text: the text makes {len(rows)} rows of {settings.max_length} tokens, "
            f"fewer than one global batch of {settings.global_batch_size}; add text or lower cpt.max_length"
        )
    aside = dict(sorted(Counter(entry.reason for entry in corpus.aside).items()))
    say(
        context,
        f"{len(corpus.train):,} documents, {len(rows):,} rows of {settings.max_length} tokens, "
        f"{left_over} tokens left over; {len(corpus.held_out):,} documents held out"
        + "".join(f"; {count:,} set aside: {reason}" for reason, count in aside.items()),
    )
    for entry in corpus.aside[:_LISTED]:
        say(context, f"set aside: {entry.where}: {entry.reason}")
    steps = steps_asked(settings)
    settled = settings if steps is None else replace(settings, max_steps=steps)
    figures = {"rows": len(rows), "left_over_tokens": left_over, "set_aside": aside}
    return _Prepared(settled, tokenizer, rows, held_out, figures)
