"""The results of the eval stage as a card reads them: which metrics, of which models, under which names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.release.card.inputs import CardInputs, Values, title_of
from posttrain.release.card.text import language_name, one_line

PERCENT = "%"
POINTS = "percentage points"
_METRICS = {
    "acc": "accuracy",
    "acc_norm": "accuracy by length-normalised likelihood",
    "bits_per_byte": "bits per byte",
    "bleu": "BLEU",
    "chrf": "chrF",
    "inst_level_loose_acc": "instructions followed, loose",
    "inst_level_strict_acc": "instructions followed, strict",
    "lc_win_rate": "length-controlled win rate",
    "mc2": "MC2",
    "prompt_level_loose_acc": "prompts followed, loose",
    "prompt_level_strict_acc": "prompts followed, strict",
    "spbleu": "spBLEU",
}
_FIRST = ("base", "sft", "instruct")


@dataclass(frozen=True)
class Row:
    """One metric of one task: the record of the task, and that of the metric."""

    task: str
    metric: str
    about: Values
    kind: Values

    @property
    def unit(self) -> str:
        """What its values are in."""
        return str(self.kind["unit"])

    @property
    def primary(self) -> bool:
        """Whether it is the figure that the task is known by."""
        return bool(self.kind["primary"])

    @property
    def language(self) -> str:
        """The name of the task's language, empty where it has none."""
        stated = self.about.get("language")
        return language_name(str(stated)) if stated else ""

    @property
    def label(self) -> str:
        """What the metric is called in a table, with its unit."""
        return metric_label(self.metric, self.unit)


def decimals(unit: str) -> int:
    """Return how many decimals a value is given with: one of what runs to 100, two of anything else."""
    return 1 if unit == PERCENT or unit.lower() in ("bleu", "spbleu", "chrf", "chrf++") else 2


def metric_label(metric: str, unit: str) -> str:
    """Return what a metric is called in a table: its name in words, and its unit where the name does not say it."""
    name = one_line(_METRICS.get(metric, metric.replace("_", " ")))
    unit = one_line(unit)
    if unit.lower() in name.lower():
        return name
    return unit if unit.lower().startswith(name.lower()) else f"{name}, {unit}"


def rows(results: Values) -> list[Row]:
    """List the metrics of all tasks, in the order of the results."""
    return [
        Row(task, metric, about, kind)
        for task, about in results["tasks"].items()
        for metric, kind in about["metrics"].items()
    ]


def value_of(results: Values, model: str, row: Row) -> float | None:
    """Return what a model reached, None where it was not measured."""
    found = results["results"].get(model, {}).get(row.task, {}).get(row.metric)
    return None if found is None or found["value"] is None else float(found["value"])


def model_name(inputs: CardInputs, key: str) -> str:
    """Return what a card calls the model that results call `key`: its repository's name, if it has one."""
    for member in inputs.family():
        if member.name == key:
            return key if member.kind == "variant" else title_of(member.repository)
    return title_of(inputs.base_model) if key == "base" and inputs.base_model else key


def shown(inputs: CardInputs) -> list[str]:
    """Return which models' columns the tables of a card have.

    A variant is shown beside what it was quantised from. Any other model is shown beside the rest of its family and
    the baselines, but not the variants, which have a table on their own cards.
    """
    models = (inputs.results or {}).get("models", {})
    if inputs.kind == "variant":
        return [key for key in (str(inputs.origin), inputs.name) if key in models]
    others = [key for key, about in models.items() if about["kind"] != "variant" and key not in _FIRST]
    return [*(key for key in _FIRST if key in models), *others]


def measured(inputs: CardInputs) -> bool:
    """Say whether there is any result of this model."""
    return bool((inputs.results or {}).get("results", {}).get(inputs.name))


def interval_of(results: Values, model: str, row: Row) -> Sequence[float] | None:
    """Return the ends of the interval of a value, None where it has none."""
    found = results["results"].get(model, {}).get(row.task, {}).get(row.metric) or {}
    ends = found.get("interval")
    return ends if ends and None not in ends else None


def sources_of(inputs: CardInputs, task: str) -> list[Values]:
    """Return what the eval stage's manifest says a task's samples were read from, the samples themselves first."""
    sources = inputs.manifests.get("eval", {}).get("sources") or ()
    return [source for source in sources if source.get("task") == task]
