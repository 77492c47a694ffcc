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
from posttrain.train.ref_logps import determined_by, load_reference, starting_checkpoint
from posttrain.train.ref_store import with_reference
from posttrain.train.reference import ADAPTER_OFF, MODEL, PRECOMPUTED, reference_kind
from posttrain.train.shared_prefix import choose_attention, describe_rows, shares_prefix, tokens_per_row
from posttrain.train.tokenizer import equip, load_tokenizer

if TYPE_CHECKING:
    from posttrain.recipe.schema import Dpo, Recipe
    from posttrain.stages.context import Context

_SOURCES = {
    PRECOMPUTED: "log-probabilities computed beforehand; the policy is the only model in memory",
    ADAPTER_OFF: "the policy with its adapter off, or with a frozen copy of the adapter it started from",
    MODEL: "a second copy of the model",
}


def _policy(recipe: Recipe, settings: Dpo, sft: str | Path, base: str | Path, device: Any) -> Any:
    """Load the policy. An adapter from the SFT stage is trained on, or merged if DPO trains all weights."""
    if settings.lora is None or not is_adapter(sft):
        return load_reference(recipe, settings, sft, base, device)
    below = load_model(base, recipe.model, dtype=recipe.model.dtype, quantization=settings.quantization, device=device)
    return load_adapter(below, Path(sft), trainable=True)


def train_dpo(context: Context) -> None:
    """Train the Instruct checkpoint; every process calls it.

    Raises:
        UserError: If tokenizer and model do not fit each other, or the stored reference log-probabilities are not
            those of the checkpoint and the pairs.
        Interrupted: If a signal stopped the training.
    """
    quiet_libraries()  # before TRL is imported
    prepare_trackers(context)
    from posttrain.train.trl import preference_trainer

    recipe, settings = context.recipe, context.recipe.dpo
    assert settings is not None
    sft, origin = starting_checkpoint(context)
    tokenizer = load_tokenizer(
        context.inputs.get("sft") or context.inputs.get("cpt") or recipe.model.tokenizer or origin, recipe.model
    )
    template = equip(tokenizer, recipe.model)
    tokens = load_tokens(context.inputs["tokenize-preference"])
    say(context, f"training: {tokens.tally.describe()}")
    say(context, f"held out: {tokens.tally_held_out.describe()}")
    kind = reference_kind(settings)
    if kind == PRECOMPUTED:
        tokens = with_reference(tokens, context.inputs["ref-logps"], determined_by(context))
    say(context, f"reference: {_SOURCES[kind]}")
    device = training_device(recipe.launch)
    policy = _policy(recipe, settings, sft, origin, device)
    reference = load_reference(recipe, settings, sft, origin, device) if kind == MODEL else None
    check_embedding(policy, tokenizer, sft)
    shared, why = shares_prefix(settings, policy)
    say(context, f"shared prefixes: {why}")
    budget = tokens_per_row(settings, recipe) if shared else None
    if budget is not None:
        attention = [choose_attention(each, recipe.model, device) for each in (policy, reference) if each is not None]
        say(context, f"packed rows: {describe_rows(tokens.train, budget)}; attention: {attention[0]}")
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
        packed=budget,
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
