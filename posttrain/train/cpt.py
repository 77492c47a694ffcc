"""The cpt stage: continued pretraining on plain text, or the first training of a new small model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posttrain.errors import UserError
from posttrain.train.curves import draw_loss
from posttrain.train.finish import save_checkpoint
from posttrain.train.loop import prepare_trackers, quiet_libraries, say, train
from posttrain.train.model import check_embedding, load_model, new_model
from posttrain.train.text import blocks, load_text
from posttrain.train.tokenizer import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from posttrain.stages.context import Context


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
    documents, held_out = load_text(settings, recipe.seed)
    if recipe.model.new is not None:
        tokenizer = train_tokenizer(documents, recipe.model.new.vocab_size, recipe.model.chat_template)
        model = new_model(recipe.model.new, tokenizer, recipe.seed)
    else:
        assert recipe.model.base is not None
        tokenizer = load_tokenizer(recipe.model.tokenizer or recipe.model.base, recipe.model)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # blocks are full, so nothing is padded
        model = load_model(recipe.model.base, recipe.model, dtype=recipe.model.trainable_dtype)
        check_embedding(model, tokenizer, recipe.model.base)
    rows, left_over = blocks(documents, tokenizer, settings.max_length, recipe.seed)
    evaluation, _ = blocks(held_out, tokenizer, settings.max_length, recipe.seed)
    if len(rows) < settings.global_batch_size:
        raise UserError(
            f"cpt.text: the text makes {len(rows)} rows of {settings.max_length} tokens, "
            f"fewer than one global batch of {settings.global_batch_size}; add text or lower cpt.max_length"
        )
    say(
        context,
        f"{len(documents):,} documents, {len(rows):,} rows of {settings.max_length} tokens, "
        f"{left_over} tokens left over; {len(held_out):,} documents held out",
    )
    trainer, outcome = train(
        context, settings, supervised_trainer, rows=rows, held_out=evaluation, tokenizer=tokenizer, model=model
    )
    save_checkpoint(
        trainer,
        context.folder,
        model=recipe.model,
        lora=None,
        base=recipe.model.base or "",
        base_name=recipe.model.base or "",
        tokenizer=tokenizer,
        template=None,
        probe=[],
    )
    if context.rank == 0:
        draw_loss(outcome.history, context.folder / "loss.png", f"{recipe.name}: continued pretraining")
    context.report(outcome.metrics() | {"rows": len(rows), "left_over_tokens": left_over})
