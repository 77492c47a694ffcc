"""What kind of file a name in a release stands for, and how large it may be."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from posttrain.release.bom import BOM
from posttrain.release.layout import ABOUT, CARD, CONSTRAINTS, MANIFESTS
from posttrain.release.limits import TEXT, TOKENIZER
from posttrain.release.model_files import TEMPLATE, VOCABULARIES, is_model_file
from posttrain.release.recipe_text import RECIPE
from posttrain.release.sums import BUILD, SIGNATURE, SUMS

_MORE = (
    ABOUT,
    BOM,
    CARD,
    CONSTRAINTS,
    RECIPE,
    SUMS,
    BUILD,
    SIGNATURE,
    f"{MANIFESTS}/*.json",
    "results/*.json",
    ".eval_results/*.yaml",
)
_TERMS = ("", ".txt", ".md")  # suffixes of the texts of licences


def most_bytes(name: str) -> int | None:
    """Return how many bytes a file may sensibly have, None for weights."""
    if name.endswith(".safetensors"):
        return None
    return TOKENIZER if name in VOCABULARIES else TEXT


def belongs(name: str, trust: bool) -> bool:
    """Say whether a release holds a file of that name."""
    if is_model_file(name) or any(fnmatchcase(name, pattern) for pattern in _MORE):
        return True
    if name.endswith(".py"):
        return trust
    return "/" not in name and Path(name).suffix.lower() in _TERMS and not name.startswith(".")


def called(name: str) -> str:
    """Return what a file of a model is to whoever reads that it was exchanged."""
    if name == TEMPLATE:
        return "the chat template"
    if name in VOCABULARIES or name.startswith(("tokenizer", "special_tokens")):
        return "the tokenizer"
    return "the weights" if name.endswith(".safetensors") else "the configuration"
