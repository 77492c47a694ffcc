"""What a card is checked against: the files beside it, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.errors import UserError
from posttrain.release.card.inputs import Weights, title_of
from posttrain.release.card.record import CARD, DATA, EVAL, VARIANTS
from posttrain.release.card.usage import RECORD
from posttrain.release.card.weights import read_weights

Values = Mapping[str, Any]
LARGEST = 64 << 20  # bytes of a JSON or YAML file


@dataclass
class Facts:
    """The release's own records.

    Attributes:
        folder: The release folder.
        card: `results/card.json`: names, family, licence.
        results: `results/eval.json`, or empty.
        variants: `results/variants.json`, or empty.
        data: `results/data.json`, or empty.
        usage: `results/usage.json`, or empty.
        manifests: The manifests by stage.
        recipe: `recipe.yaml`.
        config: `config.json`.
        weights: What the weights are, None where they cannot be read.
        problems: What could not be read.
    """

    folder: Path
    card: Values = field(default_factory=dict)
    results: Values = field(default_factory=dict)
    variants: Values = field(default_factory=dict)
    data: Values = field(default_factory=dict)
    usage: Values = field(default_factory=dict)
    manifests: dict[str, Values] = field(default_factory=dict)
    recipe: Values = field(default_factory=dict)
    config: Values = field(default_factory=dict)
    weights: Weights | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What results call the model."""
        return str(self.card.get("name", ""))

    @property
    def repository(self) -> str:
        """Where it is published."""
        return str(self.card.get("repository", ""))

    @property
    def title(self) -> str:
        """Its repository's name."""
        return title_of(self.repository)

    @property
    def variant(self) -> Values | None:
        """The record of the variant that this is, None for what is none."""
        if self.card.get("kind") != "variant":
            return None
        return next((each for each in self.variants.get("variants", ()) if each["name"] == self.name), None)

    @property
    def stages(self) -> list[str]:
        """The training stages it was made by."""
        return [stage for stage in self.card.get("stages", ()) if stage in self.manifests]

    def model_names(self) -> dict[str, str]:
        """Return what each model of the results has to be called on the card, by the results' own name."""
        names = {key: key for key in self.results.get("models", {})}
        if "base" in names and self.card.get("base_model"):
            names["base"] = title_of(str(self.card["base_model"]))
        for member in self.card.get("family", ()):
            if member["name"] in names and member["kind"] != "variant":
                names[member["name"]] = title_of(member["repository"])
        return names

    def value(self, model: str, task: str, metric: str) -> float | None:
        """Return a result, None where it was not measured."""
        found = self.results.get("results", {}).get(model, {}).get(task, {}).get(metric)
        return None if found is None or found.get("value") is None else float(found["value"])

    def metrics(self) -> Iterator[tuple[str, Values, str, Values]]:
        """Yield task, its record, metric, and its record."""
        for task, about in self.results.get("tasks", {}).items():
            for metric, kind in about["metrics"].items():
                yield task, about, metric, kind


def read_facts(folder: Path) -> Facts:
    """Read the records of a release folder; what is missing or broken is among `problems`."""
    facts = Facts(folder)
    facts.card = _json(facts, CARD, needed=True)
    facts.results = _json(facts, EVAL)
    facts.variants = _json(facts, VARIANTS, needed=facts.card.get("kind") == "variant")
    facts.data = _json(facts, DATA)
    facts.usage = _json(facts, RECORD)
    facts.config = _json(facts, "config.json", needed=True)
    for path in sorted((folder / "manifests").glob("*.json")):
        facts.manifests[path.stem] = _json(facts, f"manifests/{path.name}")
    facts.recipe = _yaml(facts, "recipe.yaml")
    try:
        facts.weights = read_weights(folder)
    except UserError as error:
        facts.problems += error.problems
    return facts


def _json(facts: Facts, name: str, *, needed: bool = False) -> Values:
    return _mapping(facts, name, _content(facts, name, needed), json.loads)


def _yaml(facts: Facts, name: str) -> Values:
    import yaml

    return _mapping(facts, name, _content(facts, name, needed=True), yaml.safe_load)


def _mapping(facts: Facts, name: str, content: str | None, parse: Any) -> Values:
    import yaml

    if content is None:
        return {}
    try:
        found = parse(content)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        facts.problems.append(f"{name}: cannot be read: {(str(error).splitlines() or ['it is damaged'])[0]}")
        return {}
    if not isinstance(found, dict):
        facts.problems.append(f"{name}: holds no mapping of keys to values")
        return {}
    return found


def _content(facts: Facts, name: str, needed: bool) -> str | None:
    path = facts.folder / name
    try:
        if path.stat().st_size > LARGEST:
            facts.problems.append(f"{name}: has {path.stat().st_size:,} bytes, and {LARGEST:,} are read at most")
            return None
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if needed:
            facts.problems.append(f"{name}: is missing, and the card is checked against it")
    except (OSError, UnicodeDecodeError) as error:
        facts.problems.append(f"{name}: cannot be read: {error}")
    return None
