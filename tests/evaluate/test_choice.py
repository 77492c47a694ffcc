"""Multiple choice by lm-eval with the package's task files: likelihoods and scores computed another way."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain.assets import asset_folder
from posttrain.errors import UserError
from posttrain.evaluate.answers import Answer, answers_file, read_answers
from posttrain.evaluate.kinds.choice import ChoiceScorer, ChoiceTask, task_file
from posttrain.evaluate.results import differences, read_results, rescore
from posttrain.evaluate.run import evaluate
from posttrain.evaluate.tasks import CHOICES, LANGUAGES
from posttrain.recipe.schema_evaluate import EvalTask, MultipleChoice
from tests.evaluate.made import checkpoint, plan_of

SAMPLES = "builtin:eval/samples"


def entry(task: str, language: Any = "en", **options: Any) -> MultipleChoice:
    path = f"{SAMPLES}/{task}-{language}.jsonl"
    return MultipleChoice(**{"task": task, "language": language, "path": path, "num_fewshot": 0, **options})


def rows(name: str) -> list[dict[str, Any]]:
    text = (asset_folder("data") / "eval" / "samples" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_scores_of_known_likelihoods() -> None:
    score = ChoiceScorer().score
    options = {"metrics": ["acc_norm", "acc"]}
    answer = Answer("1", "", [-4.0, -5.0, -9.0], item={"gold": 1, "lengths": [2, 10, 3]})
    assert score(answer, options) == {"acc_norm": 1.0, "acc": 0.0}
    true = Answer("1", "", [math.log(0.2), math.log(0.1), math.log(0.1)], item={"labels": [1, 0, 1]})
    assert score(true, {"metrics": ["mc2"]})["mc2"] == pytest.approx(0.75)
    far = Answer("1", "", [-5000.0, -5001.0], item={"labels": [1, 0]})
    assert score(far, {"metrics": ["mc2"]})["mc2"] == pytest.approx(1 / (1 + math.exp(-1)))


def test_every_task_has_a_file_and_sample_rows() -> None:
    for task in CHOICES:
        for language in LANGUAGES:
            assert task_file(task, language).is_file()
            assert len(rows(f"{task}-{language}")) >= 3


class TestWithLmEval:
    """What runs lm-eval."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("lm_eval")

    def test_likelihoods_are_those_of_the_model(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tasks: list[EvalTask] = [entry("arc-challenge", max_samples=4)]
        results = evaluate(plan_of(tmp_path, tasks, [checkpoint(models[0])]))
        model, tokenizer = AutoModelForCausalLM.from_pretrained(models[0]), AutoTokenizer.from_pretrained(models[0])
        right = {"acc": 0, "acc_norm": 0}
        answers = read_answers(answers_file(tmp_path, "base", "arc-challenge-en"))
        for row, answer in zip(rows("arc-challenge-en")[:4], answers, strict=True):
            prompt, found = f"Question: {row['question']}\nAnswer:", []
            for choice in row["choices"]["text"]:
                context, whole = (tokenizer(text)["input_ids"] for text in (prompt, f"{prompt} {choice}"))
                with torch.no_grad():
                    logits = model(torch.tensor([whole])).logits[0].log_softmax(dim=-1)
                found.append(sum(float(logits[at - 1, whole[at]]) for at in range(len(context), len(whole))))
            assert answer.response == pytest.approx(found, rel=1e-5)
            gold = row["choices"]["label"].index(row["answerKey"])
            normed = [value / len(choice) for value, choice in zip(found, row["choices"]["text"], strict=True)]
            right["acc"] += found.index(max(found)) == gold
            right["acc_norm"] += normed.index(max(normed)) == gold
        figures = results["results"]["base"]["arc-challenge-en"]
        assert {name: figures[name]["value"] for name in right} == {name: 25.0 * count for name, count in right.items()}

    def test_any_batch_size_and_scoring_again_give_the_same(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        tasks: list[EvalTask] = [
            entry("hellaswag"),
            entry("mmlu", "fi", num_fewshot=1, fewshot_path=f"{SAMPLES}/mmlu-fi.jsonl"),
            entry("truthfulqa", "fi", num_fewshot=1),
        ]
        wide, single = tmp_path / "4", tmp_path / "1"
        evaluate(plan_of(wide, tasks, [checkpoint(models[0])]))
        evaluate(plan_of(single, tasks, [checkpoint(models[0])], batch_size=1))
        assert differences(read_results(wide), read_results(single), tolerance=1e-4) == []
        assert rescore(wide) == read_results(wide)

    def test_the_chat_template_opens_a_prompt_where_that_is_asked_for(
        self, models: tuple[Path, Path], tmp_path: Path
    ) -> None:
        tasks: list[EvalTask] = [
            entry("arc-challenge", max_samples=2, name="plain"),
            entry("arc-challenge", max_samples=2, name="chat", chat=True),
        ]
        evaluate(plan_of(tmp_path, tasks, [checkpoint(models[1])]))
        plain, chat = (read_answers(answers_file(tmp_path, "base", name)) for name in ("plain", "chat"))
        assert [answer.response for answer in plain] != [answer.response for answer in chat]

    def test_what_was_computed_is_not_computed_again(
        self, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import torch
        from lm_eval.models.huggingface import HFLM

        from posttrain.evaluate.checkpoints import load
        from posttrain.evaluate.kinds.base import How

        loaded = load(checkpoint(models[0]), dtype="float32", device=torch.device("cpu"))
        how = How(batch_size=4, store=tmp_path, advance=lambda count: None)
        task = ChoiceTask("arc", entry("arc-challenge"))
        first = task.answer(loaded, how)
        monkeypatch.setattr(HFLM, "loglikelihood", None)
        assert task.answer(loaded, how) == first

    def test_lm_eval_scores_the_same(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        """Its own scoring of the likelihoods, of the task as it stands in the file."""
        from posttrain.evaluate.harness import lm_eval_task

        tasks: list[EvalTask] = [entry("hellaswag"), entry("mmlu")]
        evaluate(plan_of(tmp_path, tasks, [checkpoint(models[1])]))
        for made in tasks:
            assert isinstance(made, MultipleChoice)
            name = f"{made.task}-en"
            theirs = lm_eval_task(name, ChoiceTask(name, made)._file, rows(name), [], 0, False)
            answers = read_answers(answers_file(tmp_path, "base", name))
            for document, answer in zip(theirs.eval_docs, answers, strict=True):
                scored = theirs.process_results(document, [(value, False) for value in answer.response])
                assert {key: scored[key] for key in answer.scores} == answer.scores

    def test_examples_never_hold_the_question(self) -> None:
        for task in ("truthfulqa", "arc-challenge", "mmlu"):
            path = f"{SAMPLES}/{task}-fi.jsonl"
            made = ChoiceTask("x", entry(task, "fi", num_fewshot=2 if task != "mmlu" else 1, fewshot_path=path))
            for sample, row in zip(made.samples, made._rows[0], strict=False):
                assert sample.prompt.count(row["question"]) <= 1 or task == "mmlu"
                assert sample.prompt.count("Vastaus:") == (3 if task != "mmlu" else 2)
            if task == "mmlu":  # grouped by subject
                for sample in made.samples:
                    questions = [line for line in sample.prompt.split("\n") if line.endswith("?")]
                    assert len(set(questions)) == len(questions) == 2

    def test_a_prompt_that_does_not_fit_is_said(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        results = evaluate(plan_of(tmp_path, [entry("truthfulqa", max_samples=2)], [checkpoint(models[0])]))
        assert results["notes"] == [
            "base, truthfulqa-en: 2 of 2 answered all the same: the prompt was cut to fit the model"
        ]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"num_fewshot": 2}, "give fewshot_path, or num_fewshot: 0"),
            ({"path": f"{SAMPLES}/mmlu-en.jsonl"}, "not of the form that its task file reads"),
            ({"num_fewshot": 9, "fewshot_path": f"{SAMPLES}/arc-challenge-en.jsonl"}, "to take 9 examples from"),
        ],
    )
    def test_what_does_not_fit_is_said(
        self, change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = tmp_path / "rows.jsonl"
        source.write_text("\n".join(json.dumps(row) for row in rows("arc-challenge-en")), encoding="utf-8")
        made = replace(entry("arc-challenge", path=str(source)), **change)
        with pytest.raises(UserError, match=message):
            assert ChoiceTask("arc", made).samples
