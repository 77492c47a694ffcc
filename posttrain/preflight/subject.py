"""What every check looks at: the recipe, its stages, what of them is built, and what is dear to load, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.stages.external import external

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from posttrain.chat import Template
    from posttrain.planning.hardware import Hardware
    from posttrain.planning.model import Shape
    from posttrain.recipe.schema import Recipe, Training
    from posttrain.stages.graph import Stage
    from posttrain.stages.session import Loaded
    from posttrain.stages.status import StageStatus

TRAINING = ("cpt", "sft", "dpo")


@dataclass
class Subject:
    """A recipe under check.

    Attributes:
        loaded: The recipe, loaded.
        stages: Its chain.
        processes: How many processes will train.
        statuses: What is on the disk of each stage, by name; empty where it could not be examined.
        hardware: The devices it is meant for; None for those of this machine.
    """

    loaded: Loaded
    stages: Sequence[Stage]
    processes: int
    statuses: dict[str, StageStatus] = field(default_factory=dict)
    hardware: Hardware | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.loaded.recipe

    @property
    def output(self) -> Path:
        """Its output folder."""
        return Path(self.recipe.output_dir)

    def training(self, *, to_do: bool = False) -> dict[str, Training]:
        """Return the training sections of the recipe by stage; with `to_do` those whose stage is not complete."""
        found = {name: getattr(self.recipe, name) for name in TRAINING}
        return {
            name: section
            for name, section in found.items()
            if section is not None and not (to_do and self.complete(name) is not None)
        }

    def complete(self, name: str) -> Path | None:
        """Return the folder of a stage that is complete and made from this recipe, or None."""
        status = self.statuses.get(name)
        return status.folder if status is not None and status.state == "reuse" else None

    @property
    def makes_model(self) -> bool:
        """Whether the base model is made by the cpt stage and is not there yet."""
        return self.recipe.model.new is not None and self.complete("cpt") is None

    @property
    def base(self) -> str | Path | None:
        """Where the base model is: a folder or a hub id; None while it has not been made."""
        model = self.recipe.model
        return self.complete("cpt") if model.new is not None else model.base

    @property
    def base_folder(self) -> Path | None:
        """The base model's folder, if it is on this disk."""
        base = self.base
        if base is None or isinstance(base, Path):
            return base
        there = external("model.base", base).path
        return there if there is not None and there.is_dir() else None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The values of the base model's `config.json`.

        Raises:
            UserError: They cannot be had.
        """
        from posttrain.planning.model import config_of

        return config_of(self.recipe.model)

    @cached_property
    def shape(self) -> Shape | None:
        """The sizes of the base model, or None where they are not known."""
        from posttrain.planning.model import shape

        try:
            return shape(self.config)
        except UserError:
            return None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer, as it was saved; None while the base model, with which it is trained, has not been made.

        Raises:
            UserError: It cannot be loaded.
        """
        from posttrain.planning.hub import unreachable
        from posttrain.train.tokenizer import load_tokenizer

        base, model = self.base, self.recipe.model
        if base is None:
            return None
        path = model.tokenizer or base
        away = isinstance(path, str) and external("model.tokenizer", path).path is None and unreachable() is not None
        return load_tokenizer(path, model, local_files_only=away)

    @cached_property
    def equipped(self) -> tuple[PreTrainedTokenizerBase, Template] | None:
        """The tokenizer with the recipe's template and a pad token, and the template; None as `tokenizer`.

        Raises:
            UserError: The two do not fit each other.
        """
        from posttrain.train.tokenizer import equip

        if self.tokenizer is None:
            return None
        return self.tokenizer, equip(self.tokenizer, self.recipe.model)
