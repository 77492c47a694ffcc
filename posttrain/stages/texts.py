"""What determines the blocks of a mixture of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from posttrain.stages.external import External, external
from posttrain.stages.tokens import tokenizer_keys

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe

# The keys of `cpt` that say how many blocks there are, how long they are, and what is held out.
MIXTURE = ("max_length", "global_batch_size", "tokens", "max_steps", "num_train_epochs", "validation_fraction")
NOT_READ = ("language", "license")  # keys of a text that say something about it


def text_files(recipe: Recipe) -> list[External]:
    """Return the texts of `cpt`."""
    texts = recipe.cpt.text if recipe.cpt is not None else []
    return [external(f"cpt.text.{index}.path", text.path, bare=False) for index, text in enumerate(texts)]


def is_mixture(recipe: Recipe) -> bool:
    """Say whether the texts of a recipe have shares, and so are tokenised by a stage of their own."""
    return recipe.cpt is not None and any(text.share is not None for text in recipe.cpt.text)


def mixture_part(recipe: Recipe) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return the `Stage.part` of the stage that makes blocks of texts with shares."""
    new = recipe.model.new is not None
    keys = ["chat_template"] if new else ["trust_remote_code", *tokenizer_keys(recipe.model)]

    def part(resolved: Mapping[str, Any]) -> dict[str, Any]:
        model = {key: resolved["model"][key] for key in keys}
        if new:
            model["new"] = {"vocab_size": resolved["model"]["new"]["vocab_size"]}
        cpt = {key: resolved["cpt"][key] for key in MIXTURE}
        texts = [{key: text[key] for key in text if key not in NOT_READ} for text in resolved["cpt"]["text"]]
        return {"model": model, "cpt": {**cpt, "text": texts}, "seed": resolved["seed"]}

    return part
