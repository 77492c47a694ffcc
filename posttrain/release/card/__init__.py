"""Model cards: written from manifests and results alone, and checked against them.

The release stage puts a card together in this order:

1. `inputs = CardInputs(...)`, with `weights=read_weights(folder)`;
2. each of `result_files(inputs)` is written into the folder: what the card cites, and what the linter reads;
3. `README.md` is `write_card(inputs)`;
4. `lint_card(folder)` has no errors;
5. `run_usage(card, folder)` runs its code as written, and raises if that fails; then `USAGE` is `usage_record(card)`.

Manifests are expected as `manifests/<stage>.json`, the recipe as `recipe.yaml`.
"""

from __future__ import annotations

from posttrain.release.card.hub_results import eval_results_files
from posttrain.release.card.inputs import CardInputs, CardLicense, Sibling, Weights
from posttrain.release.card.lint import lint_card
from posttrain.release.card.record import result_files
from posttrain.release.card.text import plain
from posttrain.release.card.usage import RECORD as USAGE
from posttrain.release.card.usage import run_usage, usage_record
from posttrain.release.card.weights import read_weights
from posttrain.release.card.write import write_card

__all__ = [
    "USAGE",
    "CardInputs",
    "CardLicense",
    "Sibling",
    "Weights",
    "eval_results_files",
    "lint_card",
    "plain",
    "read_weights",
    "result_files",
    "run_usage",
    "usage_record",
    "write_card",
]
