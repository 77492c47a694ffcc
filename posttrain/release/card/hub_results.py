"""The results of a model in the forms that the hub reads: in a card's metadata, and as `.eval_results/*.yaml`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from posttrain.release.card.inputs import CardInputs
from posttrain.release.card.paths import HUB_ID
from posttrain.release.card.results import decimals, rows, sources_of, value_of
from posttrain.release.card.text import one_line

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def eval_results(inputs: CardInputs) -> list[EvalResult]:
    """Return this model's results for the metadata of its card, primary metrics first."""
    from huggingface_hub import EvalResult

    results = inputs.results
    if results is None:
        return []
    found = []
    for row in sorted(rows(results), key=lambda row: not row.primary):
        value = value_of(results, inputs.name, row)
        if value is None:
            continue
        about = row.about
        dataset, revision = _dataset(inputs, row.task)
        found.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=dataset or one_line(row.task),
                dataset_name=one_line(about["title"]),
                dataset_config=str(about["language"]) if about.get("language") else None,
                dataset_revision=revision,
                dataset_args={"num_few_shot": about["num_fewshot"]},
                metric_type=row.metric,
                metric_name=row.label,
                metric_value=round(value, decimals(row.unit)),
            )
        )
    return found


def _dataset(inputs: CardInputs, task: str) -> tuple[str | None, str | None]:
    """Return the hub id and the commit of the data set of a task, None for both where it was a local file."""
    for source in sources_of(inputs, task)[:1]:
        if not source.get("files") and HUB_ID.fullmatch(str(source["path"])):
            return str(source["path"]), source.get("revision")
    return None, None


def eval_results_files(inputs: CardInputs) -> dict[str, str]:
    """Return `.eval_results/<task>.yaml`, a file a task, in the form in which the hub reads results.

    The hub's form names the data set by its id there. So a task on a local file, of which it is not known that it holds
    what some data set of the hub does, has no such file; its results are in the card and in `results/eval.json`.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    results = inputs.results
    if results is None:
        return {}
    entries: dict[str, list[EvalResultEntry]] = {}
    for row in rows(results):
        value, (dataset, revision) = value_of(results, inputs.name, row), _dataset(inputs, row.task)
        if value is None or dataset is None or not row.primary:
            continue
        about = row.about
        entry = EvalResultEntry(
            dataset_id=dataset,
            task_id=row.task,
            dataset_revision=revision,
            value=round(value, decimals(row.unit)),
            notes=(
                f"{row.metric}, {row.unit}; {about['num_fewshot']}-shot; {about['samples']} samples; posttrain's task "
                f"{row.task}, version {about['version']}"
            ),
        )
        entries.setdefault(re.sub(r"[^A-Za-z0-9_-]", "-", row.task), []).append(entry)
    return {
        f".eval_results/{name}.yaml": yaml.safe_dump(
            eval_result_entries_to_yaml(of_task), sort_keys=False, allow_unicode=True, width=120
        )
        for name, of_task in entries.items()
    }
