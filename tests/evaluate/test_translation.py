"""Translation: prompts, places to read from, and scores that are sacrebleu's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain.errors import UserError
from posttrain.evaluate.answers import Answer
from posttrain.evaluate.kinds.translation import TranslationScorer, TranslationTask
from posttrain.evaluate.results import read_results, rescore
from posttrain.evaluate.run import evaluate
from posttrain.recipe.schema_evaluate import Translation
from tests.evaluate.made import checkpoint, plan_of

PAIRS = [("A red boat.", "Punainen vene."), ("The lake is calm.", "Järvi on tyyni."), ("Snow fell.", "Satoi lunta.")]


def moses(folder: Path) -> str:
    for language, side in zip(("en", "fi"), zip(*PAIRS, strict=True), strict=True):
        (folder / f"pairs.{language}").write_text("".join(f"{line}\n" for line in side), encoding="utf-8")
    return str(folder / "pairs")


def test_the_examples_come_first_and_are_left_out_of_the_samples(tmp_path: Path) -> None:
    task = TranslationTask("flores", Translation(task="flores", path=moses(tmp_path), num_fewshot=1))
    assert [sample.item["reference"] for sample in task.samples] == ["Järvi on tyyni.", "Satoi lunta."]
    assert task.samples[0].prompt == (
        "English: A red boat.\nFinnish: Punainen vene.\n\nEnglish: The lake is calm.\nFinnish:"
    )
    other = Translation(task="flores", source="fi", target="en", path=moses(tmp_path), num_fewshot=0, max_samples=1)
    (sample,) = TranslationTask("flores", other).samples
    assert (sample.prompt, sample.item["reference"]) == ("Finnish: Punainen vene.\nEnglish:", "A red boat.")


@pytest.mark.parametrize(
    "row",
    [
        {"en": "A red boat.", "fi": "Punainen vene."},
        {"translation": {"en": "A red boat.", "fi": "Punainen vene."}},
        {"sentence_eng_Latn": "A red boat.", "sentence_fin_Latn": "Punainen vene."},
    ],
)
def test_rows_that_hold_both_sides(row: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    (sample,) = TranslationTask("f", Translation(task="flores", path=str(path), num_fewshot=0)).samples
    assert sample.item["reference"] == "Punainen vene."


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    path = moses(tmp_path)
    with pytest.raises(UserError, match="has no lines after its 3 examples"):
        assert TranslationTask("f", Translation(task="flores", path=path, num_fewshot=3)).samples
    (tmp_path / "pairs.fi").write_text("yksi\n", encoding="utf-8")
    with pytest.raises(UserError, match="different numbers of lines"):
        assert TranslationTask("f", Translation(task="flores", path=path)).samples
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"en": "A boat."}', encoding="utf-8")
    with pytest.raises(UserError, match=r"row 1 of .*rows.jsonl has no sentence in fi"):
        assert TranslationTask("f", Translation(task="flores", path=str(rows), num_fewshot=0)).samples


def test_scores_are_those_of_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    said = ["Punainen vene on tässä.", "Järvi on tyyni ja kaunis", "Sataa lunta tänään.", ""]
    meant = ["Punainen vene on tuossa.", "Järvi on tyyni ja hyvin kaunis.", "Tänään sataa lunta.", "Kettu."]
    scorer, options = TranslationScorer(), {"tokenizers": ["13a"]}
    pairs = zip(said, meant, strict=True)
    answers = [Answer(str(n), "", text, item={"reference": other}) for n, (text, other) in enumerate(pairs)]
    for answer in answers:
        answer.scores.update(json.loads(json.dumps(scorer.score(answer, options))))
    bleu, chrf = scorer.measure(answers, options)
    assert bleu.value == pytest.approx(sacrebleu.corpus_bleu(said, [meant]).score)
    assert chrf.value == pytest.approx(sacrebleu.corpus_chrf(said, [meant]).score)
    assert bleu.value > 10
    ends = bleu.interval(1, 300)
    assert ends is not None
    assert ends[0] < bleu.value < ends[1]


def test_a_model_is_measured_and_scored_again(models: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    entry = Translation(task="flores", path=moses(tmp_path), num_fewshot=1, max_tokens=6)
    results = evaluate(plan_of(tmp_path / "out", [entry], [checkpoint(models[0])]))
    about = results["tasks"]["flores-en-fi"]
    assert (about["language"], about["num_fewshot"], about["samples"]) == ("en-fi", 1, 2)
    assert about["options"]["tokenizers"][-1] == "13a"
    assert rescore(tmp_path / "out") == read_results(tmp_path / "out")
