"""What lets a translation pass: its language, how much it repeats itself, and its length."""

from __future__ import annotations

import random
from typing import Any

import pytest

from posttrain.data.generate.translation_gates import (
    JUDGED_LENGTH,
    gzip_ratio,
    judge,
    language_score,
    length_ratio,
    problems_of_gates,
)
from posttrain.recipe.schema_generate import Translate

FINNISH = "Järven rannalla on pieni punainen mökki, jossa asuu vanha kalastaja koiransa kanssa."
ENGLISH = "On the shore of the lake there is a small red cottage where an old fisherman lives with his dog."
ESTONIAN = "Järve kaldal on väike punane majake, kus elab vana kalur oma koeraga juba mitukümmend aastat."


def entry(**keys: Any) -> Translate:
    return Translate(rollout="translate", name="t", **{"to": "fi", "min_language_score": 0.0, **keys})


@pytest.fixture
def heliport() -> None:
    pytest.importorskip("heliport")


@pytest.mark.usefixtures("heliport")
def test_the_language_score_is_the_share_of_letters_in_the_language() -> None:
    assert language_score(FINNISH, "fi") == 1.0
    assert language_score(ENGLISH, "fi") == 0.0
    assert language_score(ESTONIAN, "fi") == 0.0
    both = language_score(f"{FINNISH}\n{ENGLISH}", "fi")
    assert both is not None
    assert 0.3 < both < 0.7
    # The longer the foreign part, the lower the score.
    more = language_score(f"{FINNISH}\n{ENGLISH}\n{ENGLISH}", "fi")
    assert more is not None
    assert more < both


@pytest.mark.usefixtures("heliport")
def test_code_links_and_short_lines_are_not_judged() -> None:
    code = "```\nthis is not a sentence that anybody would judge as English\n```"
    text = f"{FINNISH}\n{code}\nhttps://example.com/an-english-address-with-words\nOK\nYes, sir\n- Weekend"
    assert language_score(text, "fi") == 1.0


@pytest.mark.usefixtures("heliport")
def test_too_little_to_judge_is_believed() -> None:
    assert language_score("", "fi") is None
    assert language_score("Hello", "fi") is None
    assert language_score(ENGLISH, "xx-unknown") is None
    assert judge(entry(min_language_score=0.9), ["Hi"], ["Moi"])[1] is None


@pytest.mark.usefixtures("heliport")
def test_short_lines_are_judged_together_where_no_line_can_be() -> None:
    assert language_score("it is cold\nit was warm\nthey went home\nwe stayed", "fi") == 0.0
    assert language_score("on kylmä\noli lämmin\nhe menivät kotiin\nme jäimme tänne", "fi") == 1.0


@pytest.mark.usefixtures("heliport")
def test_an_untranslated_half_fails() -> None:
    originals = [f"{ENGLISH}\n{ENGLISH}"]
    scores, failed = judge(entry(min_language_score=0.9), originals, [f"{FINNISH}\n{ENGLISH}"])
    assert failed is not None
    assert failed.startswith("language score below min_language_score: 0.")
    assert scores["language_score"] < 0.9
    assert judge(entry(min_language_score=0.9), originals, [f"{FINNISH}\n{FINNISH}"])[1] is None
    assert judge(entry(min_language_score=0.0), originals, [ENGLISH])[0].keys() == {"gzip_ratio", "length_ratio"}


def test_a_loop_compresses_to_little() -> None:
    loop = "ja sitten " * 200
    ratio = gzip_ratio(loop)
    assert ratio is not None
    assert ratio < 0.05
    assert (
        judge(entry(max_length_ratio=1000.0), ["And then."], [loop])[1]
        == f"gzip ratio below min_gzip_ratio: {ratio:.2f}"
    )
    letters = random.Random(1)
    words = " ".join("".join(letters.choices("aeioulknrst", k=6)) for _ in range(300))
    whole = gzip_ratio(words)
    assert whole is not None
    assert whole > 0.3
    assert judge(entry(), [words], [words])[1] is None
    # Code that repeats itself was not written by the translator.
    assert gzip_ratio(f"```\n{loop}\n```\n{words}") == pytest.approx(whole, abs=0.01)
    assert gzip_ratio("Hei") is not None
    assert gzip_ratio("```\nx\n```") is None


def test_the_length_is_compared_turn_by_turn() -> None:
    short, long = "a" * 60, "b" * 120
    assert length_ratio(short, long) == 2.0
    assert length_ratio("Yes", "Kyllä") is None
    assert length_ratio("Yes", "b" * JUDGED_LENGTH) == pytest.approx(JUDGED_LENGTH / 3)
    assert length_ratio(f"{short}\n```\n{long}\n```", f"{short}\n```\n{long}\n```") == 1.0
    originals = [short, "c" * 1000]
    scores, failed = judge(entry(min_gzip_ratio=0.0), originals, [long, "c" * 1000])
    assert failed == "length ratio above max_length_ratio: 2.00"
    assert scores["length_ratio"] == 2.0
    assert judge(entry(min_gzip_ratio=0.0, max_length_ratio=2.0), originals, [long, "c" * 1000])[1] is None


def test_without_heliport_the_language_gate_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttrain.data.steps.identifier.find_spec", lambda name: None)
    (problem,) = problems_of_gates(entry(min_language_score=0.9))
    assert problem.startswith("min_language_score: the package heliport is not installed")
    assert "'.[language]'`, or set it to 0" in problem
    assert problems_of_gates(entry()) == []
