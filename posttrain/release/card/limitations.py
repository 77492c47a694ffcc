"""The limitations that follow from what was and was not done and measured, each a sentence or two."""

from __future__ import annotations

import re
from collections.abc import Iterator

from posttrain.data.report.words import plural, several
from posttrain.data.rows import UNKNOWN_LANGUAGE
from posttrain.release.card.inputs import CardInputs
from posttrain.release.card.mixture import languages, licences, own_summary
from posttrain.release.card.results import measured, rows, value_of
from posttrain.release.card.text import at_start, language_name, large, plain

FEW_SAMPLES = 200  # below it, an interval of a percentage is some ten points wide
FOR_TRIALS = 20_000_000  # parameters
_SAFETY = re.compile(r"safe|toxi|bias|harm|refus|jailbreak", flags=re.IGNORECASE)


def limitations(inputs: CardInputs) -> list[str]:
    """Return the limitations in Markdown, those of its publisher last."""
    return [*_found(inputs), *(at_start(plain(text)) for text in inputs.limitations)]


def _found(inputs: CardInputs) -> Iterator[str]:
    size = inputs.weights.parameters if inputs.weights is not None else None
    if size is not None and size < FOR_TRIALS:
        yield (
            f"With {large(size)} parameters this model tries out the tools it was built with. "
            "Its answers are of no other use."
        )
    yield "It can state what is false, and be wrong in good style. Check what matters."
    if inputs.kind == "variant":
        yield "Quantisation changes answers. What it costs, as far as it was measured, is under “Quantisation”."
    yield from _evaluation(inputs)
    yield from _languages(inputs)
    summary = own_summary(inputs)
    if summary is not None:
        if not (summary.get("settings") or {}).get("decontaminate") and measured(inputs):
            yield (
                "The training rows were not compared with the prompts of the evaluation, so results may be too good "
                "where the one holds the other."
            )
        forbidding = [each for each in licences(inputs) if each.commercial == "no"]
        if forbidding:
            named = several(f"{plain(each.id)} ({plural(each.rows, 'row')})" for each in forbidding)
            yield f"It was trained on rows that may not be used commercially: {named}."
    if not inputs.has_chat:
        yield "It continues text. It was not trained to follow instructions or to end a turn of a chat."
    if (inputs.recipe.get("model") or {}).get("trust_remote_code"):
        yield "It needs code of its own to be loaded (`trust_remote_code`). Read that code before you run it."


def _evaluation(inputs: CardInputs) -> Iterator[str]:
    results = inputs.results
    if results is None or not measured(inputs):
        yield "It was not evaluated: nothing is known of how well it does anything."
        return
    there = [row for row in rows(results) if value_of(results, inputs.name, row) is not None]
    yield (
        "What the tables above do not list was not measured"
        + ("." if any(_SAFETY.search(str(row.about["title"])) for row in there) else "; safety and bias were not.")
    )
    few = sorted({row.about["samples"] for row in there if row.about["samples"] < FEW_SAMPLES})
    if few:
        spread = f"{few[0]:,}" if len(few) == 1 else f"{few[0]:,} to {few[-1]:,}"
        yield f"Some tasks have few samples ({spread}), so their results are rough: mind the intervals."


def _languages(inputs: CardInputs) -> Iterator[str]:
    named = languages(inputs)
    if named:
        spoken = several(map(language_name, named))
        yield f"It is meant for {spoken}. Other languages were neither trained nor measured."
    summary = own_summary(inputs)
    sources = [source for part in summary["sets"].values() for source in part["sources"]] if summary is not None else []
    unstated = sum(source["languages"].get(UNKNOWN_LANGUAGE, 0) for source in sources)
    if unstated and inputs.languages is None:
        yield f"Of {plural(unstated, 'training row')}, held-out ones included, the language is not stated."
