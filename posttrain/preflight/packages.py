"""Packages that a recipe needs beyond those that posttrain always has."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from posttrain.preflight.findings import Finding, error, note

if TYPE_CHECKING:
    from posttrain.preflight.subject import Subject
    from posttrain.recipe.schema import Recipe

_EXTRA = {
    "heliport": "pip install -c constraints.txt -e '.[language]'",
    "datatrove": "pip install -c constraints.txt -e '.[cluster]'",
    "httpx": "pip install -c constraints.txt -e '.[cluster]'",
    "sentence_transformers": "pip install -c constraints.txt -e '.[embed]'",
}


def check(subject: Subject) -> Iterator[Finding]:
    """Find packages that are asked for and not installed."""
    wanted = needed(subject.recipe)
    for package, why in wanted.items():
        if find_spec(package) is None:
            install = _EXTRA.get(package, f"pip install {package.replace('_', '-')}")
            yield error(f"{why[0]}: needs the package {package}, which is not installed; {install}")
    if wanted and all(find_spec(package) is not None for package in wanted):
        yield note(f"packages: what the recipe needs beyond the usual is installed: {', '.join(wanted)}")


def needed(recipe: Recipe) -> dict[str, list[str]]:
    """Return the packages that a recipe needs beyond the usual ones, each with the keys that ask for it.

    Those that the stages themselves look for before anything is built, trackers and DeepSpeed, are not among them.
    """
    found: dict[str, list[str]] = {}

    def needs(package: str, key: str) -> None:
        found.setdefault(package, []).append(key)

    for name in ("cpt", "sft", "dpo"):
        section = getattr(recipe, name)
        if section is None:
            continue
        if any(part in section.optim for part in ("8bit", "paged", "bnb", "lion")):
            needs("bitsandbytes", f"{name}.optim: {section.optim}")
        if getattr(section, "quantization", "none") == "nf4":
            needs("bitsandbytes", f"{name}.quantization: nf4")
    if recipe.model.attn_implementation in ("flash_attention_2", "flash_attention_3"):
        needs("flash_attn", f"model.attn_implementation: {recipe.model.attn_implementation}")
    if recipe.data.filters.language is not None:
        needs("heliport", "data.filters.language")
    for index, entry in enumerate(recipe.data.sft):
        if getattr(entry, "source", None) == "europarl" and recipe.data.filters.language is None:
            needs("heliport", f"data.sft.{index} (europarl)")
    for index, entry in enumerate(recipe.generate):
        if entry.rollout == "translate":
            needs("heliport", f"generate.{index} (translate)")
    if recipe.data.duplicates.semantic is not None:
        needs("sentence_transformers", "data.duplicates.semantic")
    if recipe.cluster is not None:
        for package in ("datatrove", "httpx"):
            needs(package, "cluster")
    return found
