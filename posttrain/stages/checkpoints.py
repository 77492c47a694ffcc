"""The models that the eval stage measures: what the stages before it made, their base, and others beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posttrain.evaluate.checkpoints import Checkpoint
    from posttrain.recipe.schema import Recipe

BASE, SFT, INSTRUCT, VARIANTS = "base", "sft", "instruct", "variants"


def model_names(recipe: Recipe) -> list[str]:
    """Return the models that a recipe makes or starts from, variants as one word and each by name."""
    names = [BASE] if recipe.model.base is not None or recipe.cpt is not None else []
    names += [name for name, section in ((SFT, recipe.sft), (INSTRUCT, recipe.dpo)) if section is not None]
    if recipe.quantize is not None:
        names += [VARIANTS, *(variant.name for variant in recipe.quantize.variants)]
    return names


def chosen(recipe: Recipe) -> list[str]:
    """Return the names of the recipe's own models that are measured, each variant by its own."""
    assert recipe.eval is not None
    names = [name for name in model_names(recipe) if name != VARIANTS]
    wanted = recipe.eval.models
    if not wanted:
        return names
    return [name for name in names if name in wanted or (VARIANTS in wanted and name not in (BASE, SFT, INSTRUCT))]


def checkpoints(recipe: Recipe, inputs: Mapping[str, Path], parts: Mapping[str, str]) -> list[Checkpoint]:
    """Return the models that are measured, in order.

    Args:
        recipe: The recipe.
        inputs: The folders of the stages that were built.
        parts: Of the eval stage's fingerprint, for the digests of models from outside.
    """
    from posttrain.evaluate.checkpoints import Checkpoint
    from posttrain.stages.fingerprint import FILE
    from posttrain.train.model import is_adapter

    assert recipe.eval is not None
    model, remote = recipe.model, recipe.model.trust_remote_code
    found = []
    if "cpt" in inputs:
        found.append(_of_stage(BASE, BASE, inputs["cpt"], None))
    elif model.base is not None:
        outside = Checkpoint(name=BASE, kind="base", path=_expanded(model.base), source=_source(model.base))
        tokenizer = _expanded(model.tokenizer) if model.tokenizer is not None else None
        found.append(
            replace(outside, digest=parts.get(f"{FILE}model.base"), revision=model.revision, tokenizer=tokenizer)
        )
    base = found[0].path if found else None
    if "sft" in inputs:
        found.append(replace(_of_stage(SFT, SFT, inputs["sft"], BASE), under=base))
    if "dpo" in inputs:
        # An adapter of DPO goes on with that of SFT, onto the same base, or is put onto what SFT left whole.
        before = inputs.get("sft")
        under = str(before) if before is not None and not is_adapter(before) else base
        origin = SFT if before is not None else BASE
        found.append(replace(_of_stage(INSTRUCT, INSTRUCT, inputs["dpo"], origin), under=under))
    if "quantize" in inputs:
        found += _variants(inputs["quantize"])
    names = chosen(recipe)
    found = [replace(checkpoint, trust_remote_code=remote) for checkpoint in found if checkpoint.name in names]
    for index, baseline in enumerate(recipe.eval.baselines):
        digest = parts.get(f"{FILE}eval.baselines.{index}.path")
        found.append(
            Checkpoint(
                name=baseline.name,
                kind="baseline",
                path=_expanded(baseline.path),
                source=_source(baseline.path),
                digest=digest,
                revision=baseline.revision,
                trust_remote_code=remote,
            )
        )
    return found


def _source(written: str) -> str:
    """Return what results call a model from outside: a hub id, or the name of its folder wherever that is."""
    return Path(written).expanduser().resolve().name if Path(written).expanduser().exists() else written


def _expanded(written: str) -> str:
    return str(Path(written).expanduser()) if written.startswith("~") else written


def _of_stage(name: str, kind: Any, folder: Path, origin: str | None) -> Checkpoint:
    from posttrain.evaluate.checkpoints import Checkpoint
    from posttrain.stages.manifest import Manifest

    digest = f"sha256:{Manifest.read(folder).digest}"
    return Checkpoint(name=name, kind=kind, path=str(folder), source=folder.name, digest=digest, origin=origin)


def _variants(folder: Path) -> Iterator[Checkpoint]:
    """Yield the variants that work; those that failed are said in `variants.json`."""
    from posttrain.evaluate.checkpoints import Checkpoint
    from posttrain.stages.manifest import Manifest, digest_of

    files = Manifest.read(folder).files
    record = json.loads((folder / "variants.json").read_text(encoding="utf-8"))
    for variant in record["variants"]:
        name = variant["name"]
        if variant["failed"] is not None:
            continue
        own = {file: entry for file, entry in files.items() if file.startswith(f"{name}/")}
        yield Checkpoint(
            name=name,
            kind="variant",
            path=str(folder / name),
            source=f"{folder.name}/{name}",
            digest=f"sha256:{digest_of(own)}",
            origin=record["of"],
        )
