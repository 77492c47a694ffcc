"""The dpo stage: direct preference optimisation from the SFT checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.train.curves import draw_loss, draw_margin
from posttrain.train.dataset import load_tokens
from posttrain.train.finish import save_checkpoint
from posttrain.train.loop import prepare_trackers, quiet_libraries, say, train
from posttrain.train.lora import load_adapter, lora_config
from posttrain.train.model import check_embedding, is_adapter, load_model, training_device
from posttrain.train.tokenizer import equip, load_tokenizer

if TYPE_CHECKING:
    from posttrain.recipe.schema import Dpo, Recipe
    from posttrain.stages.context import Context


def _policy(recipe: Recipe, settings: Dpo, sft: str | Path, base: str | Path, device: Any) -> tuple[Any, Any]:
    """Load the policy, and the reference where it is a model of its own.

    An adapter from the SFT stage is trained on, or merged into its base if DPO trains all weights. The reference
    is the SFT model: a second copy for full weights; with LoRA the same model with the adapter off, or with a
    frozen copy of the SFT adapter.
    """
    lora = settings.lora is not None
    dtype = recipe.model.dtype if lora else recipe.model.trainable_dtype

    def load(path: str | Path) -> Any:
        return load_model(path, recipe.model, dtype=dtype, quantization=settings.quantization, device=device)

    def merged() -> Any:
        # PEFT froze the base when it put the adapter on
        return load_adapter(load(base), Path(sft), trainable=False).merge_and_unload().requires_grad_(True)

    if not is_adapter(sft):
        return load(sft), None if lora else load(sft)
    if lora:
        return load_adapter(load(base), Path(sft), trainable=True), None
    return merged(), merged()


def train_dpo(context: Context) -> None:
    """Train the Instruct checkpoint; every process calls it.

    Raises:
        UserError: If tokenizer and model do not fit each other.
        Interrupted: If a signal stopped the training.
    """
    quiet_libraries()  # before TRL is imported
    prepare_trackers(context)
    from posttrain.train.trl import preference_trainer

    recipe, settings = context.recipe, context.recipe.dpo
    assert settings is not None
    origin = context.inputs.get("cpt") or recipe.model.base
    assert origin is not None
    sft = context.inputs.get("sft") or origin
    tokenizer = load_tokenizer(
        context.inputs.get("sft") or context.inputs.get("cpt") or recipe.model.tokenizer or origin, recipe.model
    )
    template = equip(tokenizer, recipe.model)
    tokens = load_tokens(context.inputs["tokenize-preference"])
    say(context, f"training: {tokens.tally.describe()}")
    say(context, f"held out: {tokens.tally_held_out.describe()}")
    device = training_device(recipe.launch)
    policy, reference = _policy(recipe, settings, sft, origin, device)
    check_embedding(policy, tokenizer, sft)
    continued = is_adapter(sft) and settings.lora is not None
    trainer, outcome = train(
        context,
        settings,
        preference_trainer,
        rows=tokens.train,
        held_out=tokens.held_out,
        tokenizer=tokenizer,
        model=policy,
        ref_model=reference,
        peft_config=lora_config(settings.lora) if settings.lora is not None and not continued else None,
    )
    del policy, reference
    first = tokens.train[0]
    below_adapter = origin if continued else sft
    differences = save_checkpoint(
        trainer,
        context.folder,
        model=recipe.model,
        lora=settings.lora,
        base=below_adapter,
        base_name="../sft" if sft != origin and not continued else recipe.model.base or "../base",
        tokenizer=tokenizer,
        template=template,
        probe=first["prompt_ids"] + first["chosen_ids"],
    )
    if context.rank == 0:
        draw_loss(outcome.history, context.folder / "loss.png", f"{recipe.name}: DPO")
        draw_margin(outcome.history, context.folder / "reward_margin.png", f"{recipe.name}: DPO")
    context.report(outcome.metrics() | differences | tokens.tally.metrics(tokens.tally_held_out))
