"""Which checkpoints a recipe releases, where each one is, and where it would be published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from posttrain.errors import UserError
from posttrain.recipe.suggest import either
from posttrain.release.licence import base_folder
from posttrain.release.limits import read_json
from posttrain.release.names import name_problem, repository_name

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe

Kind = Literal["base", "sft", "instruct", "variant"]
STAGES: dict[str, Kind] = {"cpt": "base", "sft": "sft", "dpo": "instruct"}
QUANTIZE = "quantize"
VARIANTS = "variants.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One model that is released.

    Attributes:
        name: Its folder in `release/`: `base`, `sft`, `instruct`, or the variant's name.
        kind: What it is.
        stage: The stage that made it.
        inside: Its folder in the stage's, `.` for the stage's own.
        repository: Its repository on the hub, with the organisation where the recipe names one.
        branch: The branch there.
        of: What a variant was made from: `base`, `sft` or `instruct`.
    """

    name: str
    kind: Kind
    stage: str
    inside: str
    repository: str
    branch: str = "main"
    of: str | None = None


def family(recipe: Recipe) -> str:
    """Return what the repositories' names begin with."""
    return (recipe.release.name if recipe.release is not None else None) or recipe.name


def training_stages(recipe: Recipe) -> list[str]:
    """Return the stages of a recipe that end with a checkpoint, in order."""
    return [stage for stage in STAGES if getattr(recipe, stage) is not None]


def planned(recipe: Recipe) -> list[Kind]:
    """Return the full checkpoints that a recipe releases; of variants is known only which of them worked."""
    kinds = [STAGES[stage] for stage in training_stages(recipe)]
    asked = recipe.release.checkpoints if recipe.release is not None else None
    if asked is not None:
        return [kind for kind in kinds if kind in asked]
    return [kind for kind in kinds if kind != "base"] or kinds


def name_problems(recipe: Recipe) -> list[str]:
    """Return what is wrong with the names and the choice of what is released."""
    release = recipe.release
    assert release is not None
    problems = [
        f"release.{key}: {problem}"
        for key, name in (("name", family(recipe)), ("org", release.org))
        if name is not None and (problem := name_problem(name, repository=True))
    ]
    kinds: list[str] = [STAGES[stage] for stage in training_stages(recipe)]
    variants = wanted_variants(recipe)
    for name in release.checkpoints or ():
        if name not in kinds and name not in variants:
            problems.append(f"release.checkpoints: the recipe makes no {name!r}, only {either([*kinds, *variants])}")
    if release.checkpoints == [] or not (kinds or variants):
        problems.append("release: there is nothing to release; the recipe trains no model and quantises none")
    if base_folder(recipe) is not None and release.base_model is None:
        problems.append(
            f"release.base_model: model.base is the folder {recipe.model.base}, and a card names the model of the hub; "
            "give its id, owner/name"
        )
    for stage in training_stages(recipe):
        lora = getattr(getattr(recipe, stage), "lora", None)
        if lora is not None and not lora.merge and STAGES[stage] in planned(recipe):
            problems.append(
                f"release: {stage}.lora.merge is false, and an adapter alone is not loaded by transformers as it "
                f"stands; set it to true, or leave {STAGES[stage]} out of release.checkpoints"
            )
    return problems


def wanted_variants(recipe: Recipe) -> list[str]:
    """Return the names of the variants that the recipe lists."""
    return [variant.name for variant in recipe.quantize.variants] if recipe.quantize is not None else []


def find_checkpoints(recipe: Recipe, inputs: Mapping[str, Path]) -> list[Checkpoint]:
    """Return what is to be released, full checkpoints first; of variants those that work.

    Args:
        recipe: The recipe.
        inputs: The folders of its finished stages.

    Raises:
        UserError: A variant's name leads elsewhere, or nothing is left to release.
    """
    assert recipe.release is not None
    organisation = recipe.release.org

    def repository(kind: str, of: str | None = None) -> str:
        name = repository_name(family(recipe), kind, of=of)
        return f"{organisation}/{name}" if organisation else name

    stage_of = {kind: stage for stage, kind in STAGES.items()}
    found = [
        Checkpoint(name=kind, kind=kind, stage=stage_of[kind], inside=".", repository=repository(kind))
        for kind in planned(recipe)
        if stage_of[kind] in inputs
    ]
    if QUANTIZE in inputs:
        listed = read_json(inputs[QUANTIZE] / VARIANTS, f"{inputs[QUANTIZE].name}/{VARIANTS}")
        of = str(listed.get("of", "instruct"))
        trained = of in {STAGES[stage] for stage in training_stages(recipe)}
        target = repository("variant", of if trained else None)
        for record in working(listed.get("variants", []), recipe.release.checkpoints):
            name = str(record["name"])
            branch = "main" if record.get("default") else name
            found.append(
                Checkpoint(
                    name=name, kind="variant", stage=QUANTIZE, inside=name, repository=target, branch=branch, of=of
                )
            )
    if not found:
        raise UserError("release: nothing is left to release: no variant works, and no other checkpoint is asked for")
    return found


def working(records: Sequence[Mapping[str, Any]], asked: Sequence[str] | None) -> list[Mapping[str, Any]]:
    """Return the records of the variants that work, of those asked for; where the default failed, another one is it.

    Raises:
        UserError: A name is none that a folder and a branch can have.
    """
    problems = [
        f"quantize: {problem}; the folder is not one that quantize wrote"
        for record in records
        if (problem := name_problem(str(record.get("name", ""))))
    ]
    if problems:
        raise UserError(problems)
    left = [record for record in records if not record.get("failed") and (asked is None or record["name"] in asked)]
    if left and not any(record.get("default") for record in left):
        left = [{**left[0], "default": True}, *left[1:]]
    return left
