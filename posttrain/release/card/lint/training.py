"""The table of hyper-parameters: each column holds only numbers and number types of its own stage's manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator

from posttrain.preflight.findings import Finding, error
from posttrain.release.card.lint.facts import Facts
from posttrain.release.card.lint.markdown import Card, words
from posttrain.release.card.lint.numbers import NUMBER, of_stage
from posttrain.release.card.training import TITLES

# The names under which texts speak of number types.
DTYPES = {
    "float32": ("float32", "fp32", "f32", "single precision"),
    "bfloat16": ("bfloat16", "bf16"),
    "float16": ("float16", "fp16", "f16", "half precision"),
    "float64": ("float64", "fp64", "double precision"),
}
_DTYPE = re.compile(
    r"(?<![\w-])(?:" + "|".join(name for names in DTYPES.values() for name in names) + r")(?![\w])", flags=re.IGNORECASE
)
_NUMBER_TYPES = "Number types"


def dtypes_in(text: str) -> list[str]:
    """Return the number types that a text speaks of, by torch's names, in order."""
    by_name = {name: dtype for dtype, names in DTYPES.items() for name in names}
    return [by_name[match[0].lower()] for match in _DTYPE.finditer(text)]


def check(card: Card, facts: Facts) -> Iterator[Finding]:
    """Check the columns of the stages, and that the checkpoint is saved in the type the last stage says."""
    stages = {title: stage for stage, title in TITLES.items()}
    for table in card.tables:
        heads = [words(cell) for cell in table.head]
        if heads[0] or not heads[1:] or not set(heads[1:]) <= set(stages):
            continue
        for column, head in enumerate(heads[1:], 1):
            stage = stages[head]
            if stage not in facts.manifests:
                yield error(f"training: there is a column {head}, and no manifest of the stage {stage}")
                continue
            known = of_stage(facts, stage)
            model = facts.manifests[stage]["recipe"].get("model") or {}
            for row in table.rows:
                label, cell = words(row[0]), words(row[column])
                for match in NUMBER.finditer(cell):
                    if not known.has(match["digits"], percent=bool(match["percent"])):
                        yield error(f"training: {label}, {head}: {match[0]} is not in manifests/{stage}.json")
                if label == _NUMBER_TYPES and dtypes_in(cell) != [model.get("dtype"), model.get("trainable_dtype")]:
                    yield error(
                        f"training: {label}, {head}: {cell!r}, and manifests/{stage}.json has "
                        f"{model.get('dtype')} and {model.get('trainable_dtype')}"
                    )
    yield from _saved(facts)


def _saved(facts: Facts) -> Iterator[Finding]:
    """Check that `config.json`, the weights and the last training stage name one number type."""
    stated = facts.config.get("dtype") or facts.config.get("torch_dtype")
    if stated is None:
        text_config = facts.config.get("text_config") or {}
        stated = text_config.get("dtype") or text_config.get("torch_dtype")
    saved = facts.weights.dtype if facts.weights is not None else None
    if stated is not None and saved is not None and stated != saved and facts.variant is None:
        yield error(f"config.json says {stated}, and the weights are in {saved}")
    if facts.stages and facts.variant is None:
        stage = facts.stages[-1]
        meant = (facts.manifests[stage]["recipe"].get("model") or {}).get("dtype")
        if saved is not None and meant is not None and saved != meant:
            yield error(f"the weights are in {saved}, and manifests/{stage}.json says {meant}")
