"""The whole evaluation on tiny models: results for any batch size, scored again, continued, and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import UserError
from posttrain.evaluate import run as module
from posttrain.evaluate.answers import answers_file, read_answers, write_answers
from posttrain.evaluate.checkpoints import Checkpoint, Loaded
from posttrain.evaluate.results import differences, dumped, read_results, rescore
from posttrain.evaluate.run import evaluate
from posttrain.recipe.schema_evaluate import EvalTask, Ifeval, Perplexity
from tests.evaluate.made import checkpoint, plan_of
from tests.helpers import snapshot

TASKS: list[EvalTask] = [
    Ifeval(
        task="ifeval",
        path="builtin:samples/ifeval-en.jsonl",
        max_samples=5,
        max_tokens=8,
        skip_instructions=["change_case:english_capital", "change_case:english_lowercase"],
    ),
    Perplexity(
        task="perplexity", path="builtin:samples/instructions.jsonl", column="output", max_samples=5, max_length=16
    ),
]


def pair(models: tuple[Path, Path]) -> list[Any]:
    return [checkpoint(models[0]), checkpoint(models[1], "sft", kind="sft", origin="base")]


@pytest.fixture(scope="module")
def done(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished evaluation."""
    folder = tmp_path_factory.mktemp("eval")
    evaluate(plan_of(folder, TASKS, pair(models)))
    return folder


def test_the_contract_of_the_results(done: Path) -> None:
    results = read_results(done)
    assert results["settings"]["dtype"] == "float32"
    assert results["settings"]["batch_size"] == 4
    assert results["settings"]["device"] == "cpu"
    assert list(results["models"]) == ["base", "sft"]
    task = results["tasks"]["ifeval-en"]
    assert (task["samples"], task["num_fewshot"], len(task["prompts_sha256"])) == (5, 0, 64)
    assert task["metrics"]["prompt_level_strict_acc"] == {"unit": "%", "higher_is_better": True, "primary": True}
    for figures in results["results"].values():
        assert list(figures) == ["ifeval-en", "perplexity-en"]
        assert 0 <= figures["ifeval-en"]["inst_level_loose_acc"]["value"] <= 100
        low, high = figures["perplexity-en"]["perplexity"]["interval"]
        assert low <= figures["perplexity-en"]["perplexity"]["value"] <= high
    compared = {(each["task"], each["metric"]): each for each in results["comparisons"]}
    change = compared["perplexity-en", "perplexity"]
    assert (change["a"], change["b"]) == ("sft", "base")
    values = [results["results"][model]["perplexity-en"]["perplexity"]["value"] for model in ("sft", "base")]
    assert change["difference"] == pytest.approx(values[0] - values[1])
    text = (done / "table.md").read_text(encoding="utf-8")
    assert f"{values[0]:.2f}" in text
    assert "Computed in float32 on cpu, 4 samples a batch" in text
    assert (done / "results.png").read_bytes().startswith(b"\x89PNG")
    assert str(done.parent) not in dumped(results)


def test_the_batch_size_changes_no_figure(done: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    one = evaluate(plan_of(tmp_path / "one", TASKS, pair(models), batch_size=1))
    assert differences(read_results(done), one, tolerance=1e-5) == []
    for name in ("base", "sft"):
        kept = [read_answers(answers_file(folder, name, "ifeval-en")) for folder in (done, tmp_path / "one")]
        assert kept[0] == kept[1]


def test_the_number_of_samples_changes_no_answer(done: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    from dataclasses import replace

    few = [replace(TASKS[0], max_samples=2)]
    evaluate(plan_of(tmp_path, few, pair(models)[:1]))
    answers = read_answers(answers_file(tmp_path, "base", "ifeval-en"))
    assert answers == read_answers(answers_file(done, "base", "ifeval-en"))[:2]


def test_scoring_again_gives_the_same_without_a_model(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_model(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(module, "load", no_model)
    before = snapshot(done)
    assert dumped(rescore(done)) == (done / "results.json").read_text(encoding="utf-8")
    assert snapshot(done) == before


def test_scoring_again_sees_an_answer_that_was_changed(done: Path, tmp_path: Path) -> None:
    import shutil
    from dataclasses import replace

    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    path = answers_file(copy, "sft", "ifeval-en")
    answers = read_answers(path)
    (number,) = [n for n, a in enumerate(answers) if "detectable_format:constrained_response" in str(a.item)]
    write_answers(path, [replace(a, response="My answer is yes.") if n == number else a for n, a in enumerate(answers)])
    (problem,) = [each for each in differences(read_results(copy), rescore(copy)) if "prompt_level_strict" in each]
    assert problem.startswith("sft, ifeval-en: prompt_level_strict_acc is 0.0 in its results, and 20.0")


def test_what_is_finished_is_not_asked_again(
    done: Path, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posttrain.evaluate.kinds.perplexity import PerplexityTask

    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PerplexityTask, "answer", cut_off)
        with pytest.raises(KeyboardInterrupt):
            evaluate(plan_of(tmp_path, TASKS, pair(models)))
    assert [path.name for path in (tmp_path / "answers").rglob("*.jsonl")] == ["ifeval-en.jsonl"]
    asked = []
    original = module.load

    def counted(each: Checkpoint, **how: Any) -> Loaded:
        asked.append(each.name)
        return original(each, **how)

    monkeypatch.setattr(module, "load", counted)
    first = answers_file(tmp_path, "base", "ifeval-en")
    written = first.stat().st_mtime_ns
    evaluate(plan_of(tmp_path, TASKS, pair(models)))
    assert first.stat().st_mtime_ns == written
    assert asked == ["base", "sft"]
    assert (tmp_path / "results.json").read_bytes() == (done / "results.json").read_bytes()
    evaluate(plan_of(tmp_path, TASKS, pair(models)))
    assert asked == ["base", "sft"]  # nothing was missing, so no model was loaded


def test_a_task_may_be_of_some_models_only(models: tuple[Path, Path], tmp_path: Path) -> None:
    from dataclasses import replace

    results = evaluate(plan_of(tmp_path, [TASKS[1], replace(TASKS[0], models=["sft"])], pair(models)))
    assert [list(figures) for figures in results["results"].values()] == [
        ["perplexity-en"],
        ["perplexity-en", "ifeval-en"],
    ]
    assert {each["task"] for each in results["comparisons"]} == {"perplexity-en"}


def test_perplexity_is_the_models_own_loss(done: Path, models: tuple[Path, Path]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(models[0]), AutoTokenizer.from_pretrained(models[0])
    rows = [json.loads(line) for line in _lines("instructions.jsonl")[:5]]
    total, tokens, size = 0.0, 0, 0
    for row in rows:
        ids = [tokenizer.bos_token_id, *tokenizer(row["output"], add_special_tokens=False)["input_ids"]]
        size += len(row["output"].encode())
        for start in range(0, len(ids) - 1, 16):
            window = torch.tensor([ids[start : start + 17]])
            with torch.no_grad():
                total += float(model(window, labels=window).loss) * (window.shape[1] - 1)
        tokens += len(ids) - 1
    figures = read_results(done)["results"]["base"]["perplexity-en"]
    assert figures["perplexity"]["value"] == pytest.approx(float(torch.tensor(total / tokens).exp()), rel=1e-5)
    assert figures["bits_per_byte"]["value"] == pytest.approx(total / size / 0.6931471805599453, rel=1e-5)


def _lines(name: str) -> list[str]:
    from posttrain.assets import asset_folder

    return (asset_folder("data") / "samples" / name).read_text(encoding="utf-8").splitlines()


def test_damaged_answers_are_said(done: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    path = answers_file(copy, "base", "ifeval-en")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        rescore(copy)
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        rescore(copy)
    with pytest.raises(UserError, match="run posttrain eval first"):
        rescore(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 50), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "a pickle"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be loaded"),
    ],
    ids=["no weights", "damaged weights", "pickle", "no tokenizer", "no config"],
)
def test_a_broken_model_folder_is_named(spoil: Any, message: str, models: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(models[0], broken)
    spoil(broken)
    with pytest.raises(UserError, match=message) as caught:
        evaluate(plan_of(tmp_path / "out", TASKS[:1], [checkpoint(broken, "mine")]))
    assert all(problem.startswith("eval: mine: ") for problem in caught.value.problems)
