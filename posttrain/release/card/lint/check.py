"""All rules over one card."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from posttrain.preflight.findings import Finding, error, ordered
from posttrain.release.card.lint import data, evaluation, licence, metadata, names, prose, training, variants
from posttrain.release.card.lint.facts import Facts, read_facts
from posttrain.release.card.lint.markdown import Card, parse

README = "README.md"
LARGEST = 4 << 20  # bytes of a card

Rule = Callable[[Card, Facts], Iterable[Finding]]
RULES: tuple[Rule, ...] = (
    names.check,
    metadata.check,
    licence.check,
    evaluation.check,
    variants.check,
    data.check,
    training.check,
    prose.check,
)


def lint_card(folder: Path) -> list[Finding]:
    """Check `README.md` of a release folder against the files beside it.

    Args:
        folder: A release folder with the files of `result_files`, `manifests/` and `recipe.yaml`.

    Returns:
        Errors: what is wrong or cannot be traced; then warnings: what a person should look at. None for a good card.
    """
    path = folder / README
    try:
        size = path.stat().st_size
        if size > LARGEST:
            return [error(f"{README}: has {size:,} bytes, and a card has {LARGEST:,} at most; it was not read")]
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return [error(f"{README}: there is no card")]
    except (OSError, UnicodeDecodeError) as fault:
        return [error(f"{README}: cannot be read: {fault}")]
    facts = read_facts(folder)
    if facts.problems:
        return [error(problem) for problem in facts.problems]
    try:
        card = parse(text)
    except ValueError as fault:
        return [error(f"{README}: {fault}")]
    return ordered(finding for rule in RULES for finding in rule(card, facts))
