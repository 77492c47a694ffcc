"""The sft stage: supervised fine-tuning on chats."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from posttrain.train.curves import draw_loss
from posttrain.train.dataset import encode_sft, require_rows, write_refused
from posttrain.train.finish import save_checkpoint
from posttrain.train.loop import prepare_trackers, quiet_libraries, say, train
from posttrain.train.lora import lora_config
from posttrain.train.model import check_embedding, load_model, training_device
from posttrain.train.tokenizer import equip, load_tokenizer

if TYPE_CHECKING:
    from posttrain.stages.context import Context


def train_sft(context: Context) -> None:
    """Train the SFT checkpoint from the base; every process calls it.

    Raises:
        UserError: If no row is left to train on, or template, tokenizer and model do not fit each other.
        Interrupted: If a signal stopped the training.
    """
    quiet_libraries()  # before TRL is imported
    prepare_trackers(context)
    from posttrain.chat import require_markers
    from posttrain.train.trl import pack, supervised_trainer

    recipe, settings = context.recipe, context.recipe.sft
    assert settings is not None
    base = context.inputs.get("cpt") or recipe.model.base
    assert base is not None
    tokenizer = load_tokenizer(context.inputs.get("cpt") or recipe.model.tokenizer or base, recipe.model)
    template = equip(tokenizer, recipe.model)
    require_markers(template, settings.loss_on)
    folder = context.inputs["data"] / "sft"
    encode = partial(
        encode_sft, tokenizer=tokenizer, template=template, loss_on=settings.loss_on, max_length=settings.max_length
    )
    rows, tally = encode(folder / "train.parquet")
    require_rows(tally, "SFT", folder / "train.parquet")
    evaluation, held_out = encode(folder / "validation.parquet")
    say(context, f"training: {tally.describe()}")
    say(context, f"held out: {held_out.describe()}")
    probe = rows[0]["input_ids"]
    if settings.packing != "none":
        rows = pack(rows, settings.max_length, settings.packing)
        say(context, f"packed into {len(rows):,} rows of {settings.max_length} tokens")
    dtype = recipe.model.trainable_dtype if settings.lora is None else recipe.model.dtype
    device = training_device(recipe.launch)
    model = load_model(base, recipe.model, dtype=dtype, quantization=settings.quantization, device=device)
    check_embedding(model, tokenizer, base)
    trainer, outcome = train(
        context,
        settings,
        supervised_trainer,
        rows=rows,
        held_out=evaluation,
        tokenizer=tokenizer,
        model=model,
        peft_config=lora_config(settings.lora) if settings.lora is not None else None,
    )
    del model
    differences = save_checkpoint(
        trainer,
        context.folder,
        model=recipe.model,
        lora=settings.lora,
        base=base,
        base_name=recipe.model.base or "../base",
        tokenizer=tokenizer,
        template=template,
        probe=probe,
    )
    if context.rank == 0:
        write_refused([tally, held_out], context.folder / "rejected.parquet")
        draw_loss(outcome.history, context.folder / "loss.png", f"{recipe.name}: SFT")
    context.report(outcome.metrics() | differences | tally.metrics(held_out))
