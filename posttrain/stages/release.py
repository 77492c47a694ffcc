"""What determines the release folders, what they read from outside, and what can be known to be wrong beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.assets import is_hub_file, locate
from posttrain.errors import UserError
from posttrain.stages.external import External

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe

# The stages whose manifests tell how a model came about; each is an input, as far as the recipe has it.
CHAIN = (
    "generate",
    "data",
    "tokenize-cpt",
    "cpt",
    "tokenize-sft",
    "tokenize-preference",
    "sft",
    "ref-logps",
    "dpo",
    "quantize",
    "eval",
)
_ELSEWHERE = ("signing", "public_words")  # keys that leave every byte of a release but the signature as it is


def release_part(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what determines the folders besides the stages before: the section, and the method of signing of `signing`.

    The recipe as a whole is in every folder, but what it says of the stages is in their fingerprints already.
    """
    section = {key: value for key, value in resolved["release"].items() if key not in _ELSEWHERE}
    signing = resolved["release"]["signing"]
    section["signed"] = signing["method"] if signing is not None else None
    model = {key: resolved["model"][key] for key in ("base", "trust_remote_code")}
    return {"name": resolved["name"], "model": model, "release": section}


def release_files(recipe: Recipe) -> list[External]:
    """Return the texts of licences, and the card of a base model in a folder, which states its licence."""
    from posttrain.release.licence import base_folder

    assert recipe.release is not None
    found = []
    for index, written in enumerate(recipe.release.license_files):
        place = None if is_hub_file(written) else Path(locate(written)).expanduser()
        found.append(External(f"release.license_files.{index}", written, place))
    folder = base_folder(recipe)
    if folder is not None and (folder / "README.md").is_file():
        found.append(External("model.base/README.md", f"{recipe.model.base}/README.md", folder / "README.md"))
    return found


def release_problems(recipe: Recipe, world_size: int) -> list[str]:
    """Return what is wrong with names, licence and signing before anything is built."""
    from posttrain.release.checkpoints import name_problems
    from posttrain.release.licence import terms
    from posttrain.release.sign import signing_problems

    assert recipe.release is not None
    found = name_problems(recipe) + signing_problems(recipe.release.signing)
    try:
        terms(recipe)
    except UserError as error:
        found += error.problems
    return found
