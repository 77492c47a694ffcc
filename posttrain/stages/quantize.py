"""What determines the quantised variants: the checkpoint, the text, and the settings that reach the weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.stages.external import External, external

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe
    from posttrain.stages.context import Context

STAGES = {"base": "cpt", "sft": "sft", "instruct": "dpo"}  # which stage makes which checkpoint
PACKAGES = ("gptqmodel", "optimum")
EXTRA = "pip install -c constraints.txt -e '.[quantize]'"
_MODEL = ("base", "revision", "tokenizer", "chat_template", "trust_remote_code")


def checkpoint(recipe: Recipe) -> str:
    """Return which checkpoint is quantised: `base`, `sft` or `instruct`."""
    settings = recipe.quantize
    assert settings is not None
    if settings.of is not None:
        return settings.of
    return "instruct" if recipe.dpo is not None else "sft" if recipe.sft is not None else "base"


def made_by(recipe: Recipe) -> str | None:
    """Return the stage that makes the checkpoint, or None where it is `model.base`."""
    stage = STAGES[checkpoint(recipe)]
    return stage if getattr(recipe, stage) is not None else None


def uses_rows(recipe: Recipe) -> bool:
    """Say whether the recipe's own SFT rows are calibrated or measured on."""
    settings = recipe.quantize
    assert settings is not None
    own = settings.calibration.path is None or settings.heldout.path is None
    return own and bool(recipe.data.sft)


def quantize_part(recipe: Recipe) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return the `Stage.part` of the quantize stage."""
    keys = ("trust_remote_code",) if made_by(recipe) else _MODEL

    def part(resolved: Mapping[str, Any]) -> dict[str, Any]:
        model = {key: resolved["model"][key] for key in keys}
        return {"quantize": resolved["quantize"], "model": model, "seed": resolved["seed"]}

    return part


def quantize_files(recipe: Recipe) -> list[External]:
    """Return the sets of text, and the checkpoint where no stage makes it."""
    settings = recipe.quantize
    assert settings is not None
    found = [
        external(f"quantize.{key}.path", part.path, bare=False)
        for key, part in (("calibration", settings.calibration), ("heldout", settings.heldout))
        if part.path is not None
    ]
    if made_by(recipe) is None:
        from posttrain.stages.graph import model_files

        found += model_files(recipe)
    return found


def quantize_problems(recipe: Recipe, world_size: int) -> list[str]:
    """Return what is wrong with the section that its types cannot show: packages, names, and the checkpoint."""
    from posttrain.release.quantize.source import source_problems

    settings = recipe.quantize
    assert settings is not None
    found = [
        f"quantize: needs the package {name}, which is not installed; {EXTRA}"
        for name in PACKAGES
        if importlib.util.find_spec(name) is None
    ][:1]
    names = [variant.name for variant in settings.variants]
    if not names:
        found.append("quantize.variants: is empty; give at least one, such as {bits: 4, group_size: 128}")
    found += [
        f"quantize.variants: {name} is there more than once; damp_percent, sym and mse are not in its name"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if settings.default is not None and settings.default not in names:
        found.append(f"quantize.default: there is no variant {settings.default!r}; the variants are {', '.join(names)}")
    if settings.calibration.path is None and not recipe.data.sft:
        found.append(
            "quantize.calibration.path: missing, and the recipe has no SFT rows of its own to calibrate on; name a "
            "file, a folder or a hub id"
        )
    of, stage = checkpoint(recipe), made_by(recipe)
    if of != "base" and stage is None:
        found.append(f"quantize.of: {of}, and the recipe has no {STAGES[of]} section that would make it")
    elif stage is not None and (lora := getattr(getattr(recipe, stage), "lora", None)) is not None and not lora.merge:
        found.append(f"quantize.of: {of} ends as an adapter ({stage}.lora.merge: false); quantisation needs it merged")
    base = recipe.model.base
    if of == "base" and stage is None and base is not None:
        there = external("model.base", base).path
        if there is not None and there.is_dir():
            found += source_problems(there, "model.base", recipe.model.trust_remote_code)
    return found


def build_variants(context: Context) -> None:
    """Build the variants, and report what the manifest is to hold of them."""
    from posttrain.release.quantize.build import build
    from posttrain.release.quantize.prepare import Task
    from posttrain.release.quantize.source import fetch

    recipe = context.recipe
    stage = made_by(recipe)
    model = recipe.model

    def folder_of(key: str, written: str, revision: str | None) -> Path:
        there = external(f"model.{key}", written).path
        return there if there is not None else fetch(key, written, revision, model.trust_remote_code)

    if stage is not None:
        source = tokenizer = context.inputs[stage]
    else:
        assert model.base is not None, "a rule of the recipe asks for a base or a new model, and that for cpt"
        source = folder_of("base", model.base, model.revision)
        tokenizer = source if model.tokenizer is None else folder_of("tokenizer", model.tokenizer, None)
    assert recipe.quantize is not None
    rows = context.inputs.get("data")

    def say(text: str) -> None:
        context.console.print(f"quantize  {text}", highlight=False, markup=False, soft_wrap=True)

    figures = build(
        Task(
            settings=recipe.quantize,
            model=model,
            of=checkpoint(recipe),
            made=stage is not None,
            source=source,
            tokenizer=tokenizer,
            rows=rows / "sft" if rows is not None else None,
            seed=context.seed,
            folder=context.folder,
            work=context.work,
            say=say,
        )
    )
    context.report(figures)
