"""Which tasks a recipe asks for: names, groups, places; and the same made small for smoke runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.assets import locate
from posttrain.evaluate.tasks import CHOICES, PLACES, expand, make, members, task_name
from posttrain.recipe.schema_evaluate import (
    TASKS,
    Baseline,
    EvalTask,
    Evaluation,
    Ifeval,
    MultipleChoice,
    TaskData,
    TaskGroup,
    Translation,
)
from posttrain.recipe.smoke_evaluate import SAMPLES, few_samples

GROUPS = ("base-en-fi", "translation", "instruct")
NAMES = {
    "base-en-fi": [f"{task}-{language}" for task in CHOICES for language in ("en", "fi")],
    "translation": ["flores-en-fi", "flores-fi-en"],
    "instruct": [f"{task}-{language}" for task in ("ifeval", "mt-bench", "alpaca-eval-2") for language in ("en", "fi")],
}


def test_groups_hold_the_tables_of_the_cards() -> None:
    assert {group: [task_name(task) for task in members(group)] for group in GROUPS} == NAMES
    assert set(TASKS) == {*(task.task for group in GROUPS for task in members(group)), "perplexity", *GROUPS}


def test_a_group_hands_on_what_it_says() -> None:
    paths = {"ifeval-fi": "mine.jsonl", "alpaca-eval-2-en": "outputs.json"}
    tasks = expand([TaskGroup(task="instruct", paths=paths, max_samples=7, max_tokens=99, models=["sft"])])
    assert [task.max_samples for task in tasks] == [7] * 6
    assert [task.models for task in tasks] == [["sft"]] * 6
    found = {task_name(task): task for task in tasks if isinstance(task, TaskData)}
    assert found["ifeval-fi"].path == "mine.jsonl"
    assert found["ifeval-fi"].config is None
    assert found["ifeval-en"].path == PLACES["ifeval", "en"]["path"]
    assert found["mt-bench-fi"].path is None
    assert getattr(found["ifeval-en"], "max_tokens", 0) == 99


def test_the_few_shot_counts_are_those_of_the_cards() -> None:
    pytest.importorskip("yaml")
    shots = {task_name(task): make(task).about.num_fewshot for task in expand([TaskGroup(task="base-en-fi")])}
    assert shots == {
        **dict.fromkeys(("arc-challenge-en", "arc-challenge-fi"), 25),
        **dict.fromkeys(("hellaswag-en", "hellaswag-fi"), 10),
        **dict.fromkeys(("mmlu-en", "mmlu-fi"), 5),
        "truthfulqa-en": 0,
        "truthfulqa-fi": 5,
    }
    assert Translation(task="flores").num_fewshot == 8
    primary = {name: make(task).about.metrics[0].name for name, task in _choices().items()}
    assert primary == {"arc-challenge": "acc_norm", "hellaswag": "acc_norm", "mmlu": "acc", "truthfulqa": "mc2"}


def _choices() -> dict[str, EvalTask]:
    return {task: MultipleChoice(task=task) for task in CHOICES}


class TestSmall:
    """What a smoke run measures."""

    SECTION = Evaluation(
        tasks=[TaskGroup(task=group) for group in GROUPS]
        + [Ifeval(task="ifeval", name="mine", models=["rival", "sft"])],
        baselines=[Baseline(name="rival", path="org/rival")],
        dtype="bfloat16",
        batch_size=64,
    )

    def test_all_tasks_are_there_and_read_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("posttrain.evaluate.tasks.find_spec", lambda name: object())
        notes: list[str] = []
        small = few_samples(self.SECTION, "tiny-model", notes)
        every = [name for names in NAMES.values() for name in names]
        assert [task_name(task) for task in small.tasks] == [*every, "mine"]
        assert (small.dtype, small.baselines) == ("float32", [Baseline(name="rival", path="tiny-model")])
        for task in small.tasks:
            assert task.max_samples == SAMPLES
            assert task.path.startswith("builtin:")
            side = ".en" if isinstance(task, Translation) else ""
            assert Path(locate(task.path) + side).is_file(), task.path
        assert all("left out" not in note or "language" in note for note in notes)

    def test_what_cannot_be_run_is_left_out_and_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("posttrain.evaluate.tasks.find_spec", lambda name: None)
        monkeypatch.setattr("posttrain.recipe.smoke_evaluate.find_spec", lambda name: None)
        notes: list[str] = []
        small = few_samples(self.SECTION, None, notes)
        assert [task_name(task) for task in small.tasks] == [*NAMES["instruct"], "mine"]
        assert small.tasks[-1].models == ["sft"]
        assert notes[0].startswith("eval: arc-challenge-en, ")
        assert notes[0].endswith("left out, because the extra eval is not installed")
        assert notes[1] == "eval.baselines: left out; the recipe makes its own model"
        assert "prompts with change_case:english_capital" in notes[2]
        assert len(notes) == 3
        only = few_samples(Evaluation(tasks=[TaskGroup(task="base-en-fi")]), None, [])
        assert [task.task for task in only.tasks] == ["ifeval"]
