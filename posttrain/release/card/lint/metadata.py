"""The metadata: what the model was made from, and the results, which the hub reads from there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from posttrain.preflight.findings import Finding, error, warning
from posttrain.release.card.lint.facts import Facts
from posttrain.release.card.lint.markdown import Card
from posttrain.release.card.lint.numbers import rounds_to

_CHAIN = {"base": (), "sft": ("base",), "instruct": ("sft", "base")}


def check(card: Card, facts: Facts) -> Iterator[Finding]:
    """Check the keys that the hub reads."""
    head = card.metadata
    yield from _base_model(head, facts)
    for key, value in (("library_name", "transformers"), ("pipeline_tag", "text-generation")):
        if head.get(key) != value:
            yield error(f"metadata: {key} is {head.get(key)!r} instead of {value!r}")
    tags = head.get("tags") or []
    if tags != sorted(set(tags)):
        yield error("metadata: tags are not in order, or twice in it; two builds would differ")
    if not head.get("language"):
        yield warning("metadata: no language is named; give the ones that the model is meant for")
    yield from _results(head, facts)
    yield from _hub_results(facts)


def _base_model(head: Mapping[str, Any], facts: Facts) -> Iterator[Finding]:
    stated, expected = head.get("base_model"), _expected_base(facts)
    kind = str(facts.card.get("kind"))
    from_scratch = bool((facts.recipe.get("model") or {}).get("new"))
    if stated is None and expected is None:
        if not from_scratch:
            base = (facts.recipe.get("model") or {}).get("base")
            yield error(
                f"metadata: base_model is missing; the recipe's base is {base!r}, say which model of the hub that is"
            )
        return
    if stated is None:
        yield error(f"metadata: base_model is missing; it was made from {expected!r}")
    elif stated != expected:
        yield error(f"metadata: base_model is {stated!r}, and it was made from {expected!r}")
    relation = "quantized" if kind == "variant" else "finetune"
    if stated is not None and head.get("base_model_relation") != relation:
        yield error(f"metadata: base_model_relation is {head.get('base_model_relation')!r} instead of {relation!r}")


def _expected_base(facts: Facts) -> str | None:
    kind = str(facts.card.get("kind"))
    chain = (facts.card.get("origin"),) if kind == "variant" else _CHAIN.get(kind, ())
    family = {each["name"]: each["repository"] for each in facts.card.get("family", ()) if each["name"] != facts.name}
    return next((family[name] for name in chain if name in family), facts.card.get("base_model"))


def _results(head: Mapping[str, Any], facts: Facts) -> Iterator[Finding]:
    """Check that the results in the metadata are those of the results file, all of them and no others."""
    expected = {
        (about["title"], about.get("language"), metric): (value, bool(kind["primary"]))
        for task, about, metric, kind in facts.metrics()
        if (value := facts.value(facts.name, task, metric)) is not None
    }
    index = head.get("model-index") or []
    if not index:
        if expected:
            yield error(
                "metadata: there are no results in it (model-index), and results/eval.json has some of this model"
            )
        return
    for model in index:
        if model.get("name") != facts.title:
            yield error(f"metadata: the results are those of {model.get('name')!r}, and this is {facts.title!r}")
    seen = set()
    for result in (result for model in index for result in model.get("results") or ()):
        data = result.get("dataset") or {}
        for metric in result.get("metrics") or ():
            key = (data.get("name"), data.get("config"), metric.get("type"))
            if key not in expected:
                yield error(f"metadata: there is no result for {_shown(key)} in results/eval.json")
                continue
            seen.add(key)
            if not rounds_to(expected[key][0], str(metric.get("value"))):
                yield error(
                    f"metadata: {_shown(key)} is {metric.get('value')}, and results/eval.json has {expected[key][0]:g}"
                )
    for key in expected.keys() - seen:
        yield error(f"metadata: the result for {_shown(key)} is missing")


def _shown(key: tuple[Any, Any, Any]) -> str:
    title, language, metric = key
    return f"{title}{f' ({language})' if language else ''}, {metric}"


def _hub_results(facts: Facts) -> Iterator[Finding]:
    """Check that `.eval_results/*.yaml` has the values of the results file."""
    import yaml

    values: dict[str, list[float | None]] = {}
    for task, _, metric, kind in facts.metrics():
        if kind["primary"]:
            values.setdefault(re.sub(r"[^A-Za-z0-9_-]", "-", task), []).append(facts.value(facts.name, task, metric))
    for path in sorted((facts.folder / ".eval_results").glob("*.yaml")):
        name = f".eval_results/{path.name}"
        try:
            entries = yaml.safe_load(path.read_text(encoding="utf-8"))
            written = [str(entry["value"]) for entry in entries]
        except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
            yield error(f"{name}: is not in the hub's form")
            continue
        known = [value for value in values.get(path.stem, []) if value is not None]
        if len(known) != len(written) or not all(map(rounds_to, known, written)):
            yield error(
                f"{name}: has {', '.join(written)}, and results/eval.json {', '.join(map('{:g}'.format, known))}"
            )
