"""Verdicts are read exactly as they were asked for, or not at all, and kept as they were said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from posttrain.errors import UserError
from posttrain.evaluate.judge.verdicts import (
    SCHEMAS,
    Verdict,
    parse_choice,
    read_said,
    read_verdicts,
    write_verdicts,
)
from tests.evaluate.judge.judging import compared, graded

REASON = "Answer A is right, B is not.\nVerdict: tie"


@pytest.mark.parametrize(
    ("line", "choice"),
    [
        ("Verdict: A", "A"),
        ("Verdict: B", "B"),
        ("Verdict: tie", "tie"),
        ("verdict: b", "B"),
        ("VERDICT:Tie", "tie"),
        ("**Verdict: A**", "A"),
        ("**Verdict:** B.", "B"),
        ("### Verdict: `tie`", "tie"),
        ("> - Verdict: A", "A"),
        ("Final verdict: B", "B"),
        ("Ratkaisu: A", "A"),
        ("Lopullinen ratkaisu: B", "B"),
        ("Ratkaisu: tasan", "tie"),
        ("**Ratkaisu:** *tasan*.", "tie"),
    ],
)
def test_a_choice(line: str, choice: str) -> None:
    for text in (line, f"{REASON}\n\n{line}", f"{line}\r\n", f"Verdict: C\n{line}\n \n"):
        assert parse_choice(text) == choice


@pytest.mark.parametrize(
    "line",
    [
        "",
        "A",
        "A is better",
        "Verdict",
        "Verdict A",
        "Verdict: V",
        "Verdict: C",
        "Verdict: AB",
        "Verdict: A or B",
        "Verdict: A, B",
        "Verdict: Answer A",
        "Verdict: A > B",
        "Verdict: A/B",
        "Verdict: A (by far)",
        "Verdict: not B",
        "Verdict: both",
        "Verdict: draw",
        "Verdict: А",  # the Cyrillic letter
        "Verdict:\nA",
        "Verdict: A\nOn second thoughts, B.",
        "Verdict: A\n\nI hope this helps!",
        "The verdict: A",
        "My verdict: A",
        "Subverdict: A",
        "Ratkaisu: R",
        "Ratkaisu: molemmat",
        "Tulos: A",
        '{"reason": "a", "verdict": "A"}',
    ],
)
def test_no_choice(line: str) -> None:
    assert parse_choice(line) is None
    assert parse_choice(f"{line}".rstrip() + "\n\nEnd.") is None


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score: 1/10", 1.0),
        ("Good.\n\nScore: 10/10", 10.0),
        ("**Pisteet:** 7,5/10", 7.5),
        ("Score: 0/10", None),
        ("Score: 0.5/10", None),
        ("Score: 11/10", None),
        ("Score: 10.5/10", None),
        ("Score: 100/10", None),
        ("Score: 4/5", None),
        ("Score: 7", None),
        ("Score: N/10", None),
        ("Score: 7/10 or 8/10", None),
        ("Score: 7/10\nClarity: 3/10", None),
    ],
)
def test_a_grade_is_from_one_to_ten(text: str, score: float | None) -> None:
    assert read_said("grade", text, structured=False) == score


def test_structured_verdicts() -> None:
    for choice in SCHEMAS["compare"]["properties"]["verdict"]["enum"]:
        assert read_said("compare", json.dumps({"reason": "Verdict: B", "verdict": choice}), structured=True) == choice
    for score in SCHEMAS["grade"]["properties"]["score"]["enum"]:
        assert read_said("grade", json.dumps({"reason": "a", "score": score}), structured=True) == score
    assert SCHEMAS["grade"]["properties"]["score"]["enum"] == list(range(1, 11))
    for bad in ("Verdict: A", '{"verdict": "A"}', '{"reason": "a", "verdict": "a"}', '{"reason": "a", "verdict": 1}'):
        assert read_said("compare", bad, structured=True) is None
    for bad in ("Score: 7/10", '{"reason": "a", "score": 0}', '{"reason": "a", "score": 11}'):
        assert read_said("grade", bad, structured=True) is None
    assert read_said("compare", '{"reason": "a", "verdict": "A"}', structured=False) is None


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    said = ("a\u2028b\n\x85\U0001f600 ä", "half \udc80 a pair", "Verdict: A")
    kept = [
        replace(compared("1", "a", "b", "A"), said=said, difficulty=0.1),
        compared("2", "b", "a", None),
        graded("3", 2, "sft", 7.5, "writing"),
    ]
    path = tmp_path / "new/verdicts.jsonl"
    write_verdicts(path, kept)
    assert read_verdicts(path) == kept
    assert [file.name for file in path.parent.iterdir()] == ["verdicts.jsonl"]
    again = tmp_path / "again.jsonl"
    write_verdicts(again, read_verdicts(path))
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("content", ["{", "[]", '{"models": 1}', '{"question": "1", "models": [], "said": []}'])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"x\.jsonl: is damaged .*; judge the answers again"):
        read_verdicts(tmp_path / "x.jsonl")
    with pytest.raises(UserError, match=r"y\.jsonl: cannot be read: No such file"):
        read_verdicts(tmp_path / "y.jsonl")


def test_points_go_to_the_model_and_not_to_the_place() -> None:
    verdict: Verdict = compared("1", "sft", "base", "B")
    assert (verdict.points("base"), verdict.points("sft")) == (1.0, 0.0)
    assert replace(verdict, choice="tie").points("sft") == 0.5
    assert replace(verdict, choice=None).points("sft") is None
    named = compared("1", "tie", "B", "A")
    assert (named.points("tie"), named.points("B")) == (1.0, 0.0)
