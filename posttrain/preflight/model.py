"""The base model: lengths it knows, and whether the tokenizer that is named beside it is its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.preflight.findings import Finding, error, note, warning
from posttrain.stages.external import external

if TYPE_CHECKING:
    from posttrain.preflight.subject import Subject


def check(subject: Subject) -> Iterator[Finding]:
    """Check the model's configuration against the recipe."""
    try:
        config = subject.config
    except UserError as problem:
        if subject.base_folder is not None:  # told by the stages' own checks
            return
        yield from (warning(f"{text} (so sizes and lengths were not checked)") for text in problem.problems)
        return
    yield from _lengths(subject, config)
    yield from _tokenizer_of_its_own(subject)
    if subject.recipe.model.trust_remote_code:
        yield warning(
            "model.trust_remote_code: code from the model's repository is run here; read it, and give a commit in "
            "model.revision"
        )
    elif "auto_map" in config and subject.base_folder is not None and config.get("model_type") is None:
        yield error("model.base: it brings its own code; read it, then set model.trust_remote_code=true")


def _lengths(subject: Subject, config: dict[str, Any]) -> Iterator[Finding]:
    most = config.get("max_position_embeddings")
    if not isinstance(most, int):
        return
    for name, section in subject.training().items():
        if section.max_length > most:
            yield error(
                f"{name}.max_length: {section.max_length} tokens, and the model knows {most} positions "
                f"(max_position_embeddings); set {name}.max_length={most} or less"
            )


def _tokenizer_of_its_own(subject: Subject) -> Iterator[Finding]:
    """Compare a tokenizer named apart with the one beside the model, id by id."""
    named, beside = subject.recipe.model.tokenizer, subject.base_folder
    if named is None or beside is None:
        return
    there = external("model.tokenizer", named).path
    ours = _vocabulary(there) if there is not None else {}
    theirs = _vocabulary(beside)
    if not ours or not theirs:
        yield note(f"model.tokenizer: {named} could not be compared with the model's own tokenizer")
        return
    moved = [token for token, number in theirs.items() if ours.get(token, number) != number]
    gone = [token for token in theirs if token not in ours]
    if moved or gone:
        example = next(iter(moved or gone))
        yield error(
            f"model.tokenizer: {named} is another tokenizer than the model was trained with: of its {len(theirs):,} "
            f"tokens {len(moved):,} have another id and {len(gone):,} are not there, such as {example!r}; leave "
            "model.tokenizer out"
        )
    elif added := len(ours) - len(theirs):
        yield note(f"model.tokenizer: {named} is the model's own with {added:,} tokens more")


def _vocabulary(folder: Path) -> dict[str, int]:
    try:
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    vocabulary = content.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # Unigram: pairs of a token and its score
        vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in content.get("added_tokens", [])}}
