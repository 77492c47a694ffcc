"""What determines the figures of the eval stage, which models it measures, and what is wrong before it begins."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli import main
from posttrain.errors import UserError
from posttrain.recipe import load
from posttrain.recipe.schema import Cpt, Dpo, Model, Recipe, Sft
from posttrain.recipe.schema_evaluate import (
    Baseline,
    EvalTask,
    Evaluation,
    Ifeval,
    MtBench,
    MultipleChoice,
    Perplexity,
    TaskGroup,
    Translation,
)
from posttrain.recipe.schema_generate import Teacher
from posttrain.recipe.schema_quantize import Quantize, Variant
from posttrain.stages.checkpoints import checkpoints, chosen
from posttrain.stages.evaluate import evaluate_files, evaluate_problems
from posttrain.stages.fingerprint import flatten
from posttrain.stages.graph import Stage, chain
from posttrain.stages.manifest import Manifest

IFEVAL = Ifeval(task="ifeval", path="builtin:samples/ifeval-en.jsonl")


def recipe_of(*tasks: EvalTask, others: dict[str, Any] | None = None, **settings: Any) -> Recipe:
    section = Evaluation(tasks=list(tasks) or [IFEVAL], **settings)
    return Recipe(**{"name": "x", "model": Model(base="some/model"), "eval": section, **(others or {})})


def stage_of(recipe: Recipe) -> Stage:
    return next(stage for stage in chain(recipe) if stage.name == "eval")


def part_of(recipe: Recipe) -> dict[str, str]:
    return flatten(stage_of(recipe).part(dataclasses.asdict(recipe)))


def keys_of(recipe: Recipe) -> list[str]:
    return [file.key for file in evaluate_files(recipe)]


class TestWhatDetermines:
    """The part of the recipe, and the files."""

    def test_tasks_and_their_files_do(self) -> None:
        assert part_of(recipe_of()) == part_of(recipe_of())
        for changed in (recipe_of(dataclasses.replace(IFEVAL, max_samples=3)), recipe_of(batch_size=2)):
            assert part_of(changed) != part_of(recipe_of())
        assert keys_of(recipe_of()) == ["eval.tasks.0.path", "model.base"]
        choice = MultipleChoice(task="arc-challenge", path="a.jsonl", fewshot_path="b.jsonl")
        assert keys_of(recipe_of(choice))[:3] == [
            "eval.tasks.0.path", "eval.tasks.0.fewshot_path", "eval.task_files.arc-challenge-en"
        ]  # fmt: skip

    def test_the_version_of_the_verifiers_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = part_of(recipe_of())
        monkeypatch.setattr("posttrain.evaluate.ifeval.IFEVAL_VERSION", "99")
        assert part_of(recipe_of()) != before
        without = recipe_of(Perplexity(task="perplexity", path="x.jsonl"))
        assert "ifeval" not in part_of(without)

    def test_a_judge_does_where_one_is_asked_but_not_where_it_is(self) -> None:
        judged = MtBench(task="mt-bench", path="q.jsonl")
        judges = [Teacher(model="a"), Teacher(model="a", base_url="http://elsewhere/v1"), Teacher(model="b")]
        one, moved, other = (part_of(recipe_of(judged, others={"judge": judge})) for judge in judges)
        assert one == moved != other
        assert part_of(recipe_of(others={"judge": judges[0]})) == part_of(recipe_of())
        assert any(key.startswith("prompts.") for key in one)

    def test_the_base_model_does_only_where_it_is_measured_or_lies_under_others(self) -> None:
        assert "model.base" in part_of(recipe_of())
        assert "model.base" not in part_of(recipe_of(models=["instruct"], others={"dpo": Dpo(), "sft": Sft()}))

    def test_aligned_files_are_two(self, tmp_path: Path) -> None:
        for language in ("en", "fi"):
            (tmp_path / f"p.{language}").write_text("x\n", encoding="utf-8")
        recipe = recipe_of(Translation(task="flores", path=str(tmp_path / "p")))
        assert keys_of(recipe)[:2] == ["eval.tasks.0.path.en", "eval.tasks.0.path.fi"]
        missing = recipe_of(Translation(task="flores", path=str(tmp_path / "none")))
        assert "there is no file or folder" in str(evaluate_files(missing)[0].missing())

    def test_members_of_a_group_read_where_it_says(self) -> None:
        group = TaskGroup(task="instruct", paths={"mt-bench-fi": "q.jsonl", "ifeval-fi": "i.jsonl"})
        found = {file.key: file.written for file in evaluate_files(recipe_of(group))}
        assert found["eval.tasks.0.paths.mt-bench-fi"] == "q.jsonl"
        assert found["eval.tasks.0.paths.ifeval-fi"] == "i.jsonl"
        assert found["eval.tasks.0.paths.ifeval-en"] == "google/IFEval"


class TestWhatIsWrong:
    """Problems, all together."""

    def problems(self, recipe: Recipe) -> list[str]:
        return evaluate_problems(recipe, 1)

    def test_nothing_is(self) -> None:
        assert self.problems(recipe_of()) == []

    def test_names(self) -> None:
        recipe = recipe_of(
            IFEVAL,
            dataclasses.replace(IFEVAL, models=["instuct"]),
            models=["instruct", "base"],
            baselines=[Baseline(name="base", path="a/b")],
        )
        assert self.problems(recipe) == [
            "eval.tasks: two tasks are called 'ifeval-en'; give one of them another name",
            "eval.models.0: the recipe makes no model 'instruct'; known: base",
            "eval.tasks.1.models: no model is called 'instuct'; known: base, base",
            "eval.baselines: 'base' is the name of another model too; give it its own",
        ]

    def test_places_judges_and_groups(self) -> None:
        found = self.problems(
            recipe_of(
                Perplexity(task="perplexity"),
                TaskGroup(task="instruct", paths={"mt-bench-if": "x"}),
                MtBench(task="mt-bench", name="judged", path="q.jsonl", against="nobody"),
            )
        )
        text = "\n".join(found)
        assert "perplexity-en has no place on the hub" in text
        assert (
            "alpaca-eval-2-fi has no place on the hub that it could be read from; give its path (in a group: " in text
        )
        assert "eval.tasks.1.paths: instruct has no task 'mt-bench-if'; did you mean mt-bench-fi?" in text
        assert "judged is scored by a judge; give a section judge (or teacher) with its model" in text
        assert "eval.tasks: judged: against: no model called 'nobody' is measured" in text

    def test_a_missing_package_is_named_with_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("posttrain.evaluate.tasks.find_spec", lambda name: None)
        monkeypatch.setattr("posttrain.stages.evaluate.find_spec", lambda name: None)
        found = self.problems(recipe_of(MultipleChoice(task="mmlu"), Translation(task="flores"), IFEVAL))
        assert found[0].startswith(
            "eval: mmlu-en: the package lm_eval is not installed; run pip install -c constraints"
        )
        assert found[1].startswith("eval: flores-en-fi: the package sacrebleu is not installed; run pip install")
        assert "need heliport, which is not installed" in found[2]
        assert "skip_instructions: [change_case:english_capital" in found[2]

    def test_bad_prompts_are_found_before_a_model_is_trained(self, tmp_path: Path) -> None:
        path = tmp_path / "p.jsonl"
        path.write_text('{"key": 1, "prompt": "Hi", "instruction_id_list": ["no:such"], "kwargs": [{}]}\n', "utf-8")
        (problem,) = self.problems(recipe_of(dataclasses.replace(IFEVAL, path=str(path))))
        assert problem.startswith("eval: ifeval-en: ")
        assert "no:such" in problem


class TestModels:
    """Which checkpoints are measured, and what they come from."""

    def folder(self, path: Path, *files: str) -> Path:
        path.mkdir(parents=True)
        made = {name: {"sha256": "0", "bytes": 1} for name in files}
        plain: dict[str, Any] = {field.name: {} for field in dataclasses.fields(Manifest)}
        record = plain | {"files": made, "digest": path.name, "format": 1, "sources": []}
        (path / "manifest.json").write_text(json.dumps(record), encoding="utf-8")
        return path

    def test_each_knows_what_it_was_made_from(self, tmp_path: Path) -> None:
        quantize = Quantize(variants=[Variant(group_size=64), Variant(bits=3)])
        others = {"sft": Sft(), "dpo": Dpo(), "quantize": quantize}
        recipe = recipe_of(others=others, baselines=[Baseline(name="rival", path="org/rival")])
        names = ["gptq-4bit-64g-actorder_True", "gptq-3bit-128g-actorder_True"]
        assert chosen(recipe) == ["base", "sft", "instruct", *names]
        quantized = self.folder(tmp_path / "quantized", f"{names[0]}/model.safetensors", "variants.json")
        variants = [{"name": names[0], "failed": None}, {"name": names[1], "failed": "it generates nothing"}]
        (quantized / "variants.json").write_text(json.dumps({"of": "instruct", "variants": variants}), "utf-8")
        inputs = {"sft": self.folder(tmp_path / "sft"), "dpo": self.folder(tmp_path / "instruct")}
        found = checkpoints(recipe, {**inputs, "quantize": quantized}, {"file eval.baselines.0.path": "sha256:1"})
        assert [(each.name, each.kind, each.origin) for each in found] == [
            ("base", "base", None),
            ("sft", "sft", "base"),
            ("instruct", "instruct", "sft"),
            (names[0], "variant", "instruct"),
            ("rival", "baseline", None),
        ]
        assert [each.source for each in found] == [
            "some/model",
            "sft",
            "instruct",
            f"quantized/{names[0]}",
            "org/rival",
        ]
        assert found[1].digest == "sha256:sft"
        only = recipe_of(others=others, models=["variants", "sft"])
        assert chosen(only) == ["sft", *names]

    def test_adapters_lie_on_what_they_were_trained_on(self, tmp_path: Path) -> None:
        recipe = recipe_of(others={"sft": Sft(), "dpo": Dpo()})
        inputs = {"sft": self.folder(tmp_path / "sft"), "dpo": self.folder(tmp_path / "instruct")}
        under = {each.name: each.under for each in checkpoints(recipe, inputs, {})}
        assert under == {"base": None, "sft": "some/model", "instruct": str(inputs["sft"])}
        (inputs["sft"] / "adapter_config.json").write_text("{}", encoding="utf-8")
        under = {each.name: each.under for each in checkpoints(recipe, inputs, {})}
        assert under["instruct"] == "some/model"

    def test_the_stage_reads_what_it_measures(self) -> None:
        made = recipe_of(others={"model": Model(new=None, base="a/b"), "cpt": Cpt(), "sft": Sft(), "dpo": Dpo()})
        assert stage_of(made).inputs == ("cpt", "sft", "dpo")
        assert "model.base" not in keys_of(made)


def test_the_entries_are_checked_as_others_are(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "name: x\nmodel: {base: a/b}\neval:\n  tasks:\n    - {task: ifevl}\n    - {task: ifeval, langauge: fi}\n"
        "    - {task: mmlu, num_fewshot: -1}\n    - {path: a}\n    - ifeval\n  batchsize: 2\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError) as caught:
        load(path)
    text = "\n".join(caught.value.problems)
    assert "eval.tasks.0.task: no task is called 'ifevl' (text); did you mean ifeval?" in text
    assert "eval.tasks.1.langauge: unknown key; did you mean language?" in text
    assert "eval.tasks.2.num_fewshot: must be 0 or more, not -1" in text
    assert "eval.tasks.3.task: missing; one of ifeval" in text
    assert "eval.tasks.4: must be a mapping such as {task: ..., path: ...}" in text
    assert "eval.batchsize: unknown key; did you mean batch_size?" in text
    assert len(caught.value.problems) == 6


def test_the_command_measures_reuses_and_scores_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.evaluate.made import make_models

    monkeypatch.chdir(tmp_path)
    make_models(tmp_path)
    (tmp_path / "x.yaml").write_text(
        "name: x\nmodel: {base: one, dtype: float32}\nlaunch: {cpu: true}\noutput_dir: out\n"
        "eval:\n  resamples: 50\n  baselines: [{name: other, path: other}]\n  tasks:\n"
        "    - {task: perplexity, path: 'builtin:samples/instructions.jsonl', column: output, max_samples: 4}\n",
        encoding="utf-8",
    )
    assert main(["eval", "x.yaml"]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "perplexity-en" in printed
    manifest = Manifest.read(tmp_path / "out" / "eval")
    assert set(manifest.metrics) == {"base/perplexity-en/perplexity", "other/perplexity-en/perplexity"}
    assert manifest.sources[0]["files"][0]["name"] == "instructions.jsonl"
    assert str(tmp_path) not in "".join(
        file.read_text(encoding="utf-8") for file in (tmp_path / "out" / "eval").rglob("*.json*")
    )
    assert main(["eval", "x.yaml"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["eval", "x.yaml", "--rescore"]) == 0
    assert "score as its results say" in capsys.readouterr().out
    results = tmp_path / "out" / "eval" / "results.json"
    changed = json.loads(results.read_text(encoding="utf-8"))
    changed["results"]["base"]["perplexity-en"]["perplexity"]["value"] += 1
    results.write_text(json.dumps(changed), encoding="utf-8")
    assert main(["eval", "x.yaml", "--rescore"]) == 2
    assert "base, perplexity-en: perplexity is" in capsys.readouterr().err
    assert main(["eval", "x.yaml", "eval.tasks.0.max_length=8"]) == 2
    assert "eval.tasks.0.max_length" in capsys.readouterr().err
