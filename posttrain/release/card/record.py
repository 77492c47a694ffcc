"""The files of a release that its card cites, and by which it is checked."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from posttrain.release.card.hub_results import eval_results_files
from posttrain.release.card.inputs import CardInputs, Values
from posttrain.release.split import placeless
from posttrain.stages.portable import portable

CARD, EVAL, DATA, VARIANTS = (f"results/{name}.json" for name in ("card", "eval", "data", "variants"))
FORMAT = 1


def card_record(inputs: CardInputs) -> dict[str, Any]:
    """Return what the card takes for given: names, family, licence."""
    return {
        "format": FORMAT,
        "name": inputs.name,
        "kind": inputs.kind,
        "repository": inputs.repository,
        "branch": inputs.branch,
        "base_model": inputs.base_model,
        "origin": inputs.origin,
        "stages": list(inputs.stages),
        "family": [asdict(member) for member in inputs.family()],
        "license": asdict(inputs.license),
        "prompt": inputs.prompt,
        "max_new_tokens": inputs.max_new_tokens,
    }


def result_files(inputs: CardInputs) -> dict[str, str]:
    """Return the files that the card cites, by their name in the release folder.

    `results/card.json` has names, family and licence; `results/eval.json`, `results/variants.json` and
    `results/data.json` are `eval/results.json`, `quantized/variants.json` and `data/summary.json` without paths of the
    machine; `.eval_results/*.yaml` has the results in the hub's form.
    """
    found = {CARD: _text(card_record(inputs))}
    for name, values in ((EVAL, inputs.results), (VARIANTS, inputs.variants), (DATA, inputs.summary)):
        if values is not None:
            found[name] = _text(values)
    return found | eval_results_files(inputs)


def _text(values: Values) -> str:
    """Write values as JSON. The order of keys is kept, because it is that of the tasks and models in tables."""
    return json.dumps(placeless(portable(values)), indent=2, ensure_ascii=False) + "\n"
