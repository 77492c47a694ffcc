"""The sft stage: supervised fine-tuning on chats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posttrain.train.curves import draw_loss
from posttrain.train.dataset import load_tokens
from posttrain.train.finish import save_checkpoint
from posttrain.train.loop import prepare_trackers, quiet_libraries, say, train
from posttrain.train.lora import lora_config
from posttrain.train.model import check_embedding, load_model, training_device
from posttrain.train.tokenizer import equip, load_tokenizer

if TYPE_CHECKING:
    from posttrain.stages.context import Context

_PROBE = 512  # tokens on which merging is checked


def train_sft(context: Context) -> None:
    """Train the SFT checkpoint from the base; every process calls it.

    Raises:
        UserError: If tokenizer and model do not fit each other.
        Interrupted: If a signal stopped the training.
    """
    quiet_libraries()  # before TRL is imported
    prepare_trackers(context)
    from posttrain.train.trl import supervised_trainer

    recipe, settings = context.recipe, context.recipe.sft
    assert settings is not None
    base = context.inputs.get("cpt") or recipe.model.base
    assert base is not None
    tokenizer = load_tokenizer(context.inputs.get("cpt") or recipe.model.tokenizer or base, recipe.model)
    template = equip(tokenizer, recipe.model)
    tokens = load_tokens(context.inputs["tokenize-sft"])
    say(context, f"training: {tokens.tally.describe()}")
    say(context, f"held out: {tokens.tally_held_out.describe()}")
    dtype = recipe.model.trainable_dtype if settings.lora is None else recipe.model.dtype
    device = training_device(recipe.launch)
    model = load_model(base, recipe.model, dtype=dtype, quantization=settings.quantization, device=device)
    check_embedding(model, tokenizer, base)
    trainer, outcome = train(
        context,
        settings,
        supervised_trainer,
        rows=tokens.train,
        held_out=tokens.held_out,
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
        probe=tokens.train[0]["input_ids"][:_PROBE],
    )
    if context.rank == 0:
        draw_loss(outcome.history, context.folder / "loss.png", f"{recipe.name}: SFT")
    context.report(outcome.metrics() | differences | tokens.tally.metrics(tokens.tally_held_out))
