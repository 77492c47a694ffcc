"""Ratings are read exactly as they were asked for, or not at all."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from posttrain.data.generate.ratings import MAX_SCORE, RATING_SCHEMA, parse_score, parse_structured

REASON = "It meets criteria 1, 2 and 4 of 5.\nIt is 3/4 right."


@pytest.mark.parametrize(
    ("line", "score"),
    [
        ("Score: 4/5", 4.0),
        ("Score: 0/5", 0.0),
        ("Score: 5/5", 5.0),
        ("Pisteet: 3/5", 3.0),
        ("score: 4/5", 4.0),
        ("SCORE:4/5", 4.0),
        ("Score: 4 / 5", 4.0),
        ("Score: 4/5.", 4.0),
        ("  Score: 4/5  ", 4.0),
        ("**Score: 4/5**", 4.0),
        ("**Score:** 4/5", 4.0),
        ("**Score**: 4/5", 4.0),
        ("Score: **4/5**", 4.0),
        ("Score: **4**/5", 4.0),
        ("**Score: 4/5.**", 4.0),
        ("__Pisteet:__ `2/5`", 2.0),
        ("### Score: 4/5", 4.0),
        ("- **Score:** 4/5", 4.0),
        ("> Score: 1/5", 1.0),
        ("Score: 4.5/5", 4.5),
        ("Pisteet: 4,5/5", 4.5),
        ("Score: 5.0/5", 5.0),
        ("Score: 0.25/5", 0.25),
        ("Final score: 4/5", 4.0),
        ("**Total Score: 4/5**", 4.0),
        ("Kokonaispisteet: 2/5", 2.0),
        ("Lopulliset pisteet: 2/5", 2.0),
    ],
)
def test_a_score(line: str, score: float) -> None:
    for text in (line, f"{REASON}\n\n{line}", f"Score: 1/5\n{line}\n", f"{line}\r\n", f"{line}\n\nI hope this helps!"):
        assert parse_score(text) == score


@pytest.mark.parametrize(
    "line",
    [
        "",
        "I would give 4",
        "I would give it 4/5.",
        "4/5",
        "Score: 4",
        "Score 4/5",
        "Score: N/5",
        "Score: /5",
        "Score: four/5",
        "Score: four out of five",
        "Score: 4 out of 5",
        "Score: 8/10",
        "Score: 4/50",
        "Score: 4/5/5",
        "Score: 4/5%",
        "Score: 80%",
        "Score: 6/5",
        "Score: 5.5/5",
        "Score: 5,01/5",
        "Score: 10/5",
        "Score: 14/5",
        "Score: -1/5",
        "Score: +4/5",
        "Score: 4./5",
        "Score: .5/5",
        "Score: 4.5.1/5",
        "Score: ４/5",
        "Score: ٤/5",
        "Score: 4½/5",
        "Score: 4-5/5",
        "Score: ~4/5",
        "Score: 4/5 or 3/5",
        "Score: 4/5, Score: 3/5",
        "Score: 3/5 Pisteet: 4/5",
        "Score: 4/5 would be too much",
        "Score: not 4/5",
        "I would not say Score: 4/5",
        "Relevance score: 1/5",
        "Score: 4/5 (quality), 5/5 (fluency)",
        "Subscore: 4/5",
        "Arvosana: 4/5",
        "Score:\n4/5",
        "Score: 4/5\n\nOn second thoughts, 3/5.",
        "Score: 4/5\nRelevance: 2/5",
        "Score: 4/5\nKokonaistulos: 3 / 5",
        '{"reason": "fine", "score": 4}',
    ],
)
def test_no_score(line: str) -> None:
    assert parse_score(line) is None
    assert parse_score(f"{REASON}\n{line}") is None


def test_an_earlier_score_does_not_stand_in_for_one_that_cannot_be_read() -> None:
    assert parse_score("Score: 4/5\nScore: 3/5") == 3.0
    assert parse_score("Score: 4/5\nScore: 3/10") is None
    assert parse_score("Score: 4/5\nScore: I cannot say") is None
    assert parse_score("Score: 4/5\nGrammar score: 3/5") is None


def test_scores_put_together_at_random() -> None:
    """A text made of parts is read as its last line says if all of that line's parts are fit, and not otherwise."""
    befores = ["", "Well done.\n", "Score: 2/5\n", "Score: 8/10\n\n", "4/5 at most\n", "Pisteet: N/5\r\n"]
    labels = {"Score": True, "pisteet": True, "FINAL SCORE": True, "My score": False, "A pisteet": False}
    marks = ["", " ", "**", "*", " **", "`", "__ "]
    numbers: dict[str, float | None] = {str(number): float(number) for number in range(6)}
    numbers |= {"4.5": 4.5, "3,25": 3.25, "0.0": 0.0, "5.000": 5.0}
    numbers |= dict.fromkeys(["6", "5.1", "10", "-1", "N", "", "4.", "4.5.5", "4-5", "four", "4 5"])
    scales = {"5": True, " 5": True, "10": False, "50": False, "5/5": False, "": False, "4": False}
    tails = {"": True, ".": True, "**": True, "\n": True, "\n\nDone.": True, " or 3/5": False, " maybe": False}
    tails |= {"\n3/5": False, "\nMy score: 3/5": False, "!": False, "\nScore: 4": False}
    draw = random.Random(0)
    read = 0
    for _ in range(20_000):
        label, number, scale, tail = (draw.choice(list(parts)) for parts in (labels, numbers, scales, tails))
        marked = [draw.choice(marks) for _ in range(4)]
        before = draw.choice(befores)
        text = f"{before}{marked[0]}{label}{marked[1]}:{marked[2]}{number}{marked[3]}/{scale}{tail}"
        expected = numbers[number] if labels[label] and scales[scale] and tails[tail] else None
        assert parse_score(text) == expected, text
        read += expected is not None
    assert read > 500


@pytest.mark.parametrize("score", range(MAX_SCORE + 1))
def test_a_structured_score(score: int) -> None:
    assert parse_structured(json.dumps({"reason": "Criteria: Score: 1/5", "score": score})) == float(score)
    assert parse_structured(f'\n{{"score": {score},\n "reason": "ä\\u0000"}}\n') == float(score)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "null",
        "[]",
        "{}",
        '[["reason", "a"], ["score", 4]]',
        '{"score": 4}',
        '{"reason": "a"}',
        '{"reason": "a", "score": 4, "more": 1}',
        '{"reason": "a", "score": 4, "score": 3}',
        '{"reason": "a", "reason": "b", "score": 3}',
        '{"reason": 1, "score": 4}',
        '{"reason": {"a": 1}, "score": 4}',
        '{"reason": "a", "score": "4"}',
        '{"reason": "a", "score": 4.0}',
        '{"reason": "a", "score": true}',
        '{"reason": "a", "score": null}',
        '{"reason": "a", "score": NaN}',
        '{"reason": "a", "score": 6}',
        '{"reason": "a", "score": -1}',
        '{"reason": "a", "score": 1e999}',
        '{"reason": "a", "score": ' + "4" * 5000 + "}",
        '{"reason": "a", "score": 4',
        '{"reason": "broken off',
        '```json\n{"reason": "a", "score": 4}\n```',
        '{"reason": "a", "score": 4} Score: 4/5',
        '{"reason": "a", "score": 4}{"reason": "a", "score": 4}',
        "Score: 4/5",
        "[" * 100_000,
    ],
)
def test_no_structured_score(text: str) -> None:
    assert parse_structured(text) is None


def test_the_schema_asks_for_what_is_read() -> None:
    properties: dict[str, Any] = RATING_SCHEMA["properties"]
    assert list(properties) == RATING_SCHEMA["required"] == ["reason", "score"]
    assert properties["score"]["enum"] == [0, 1, 2, 3, 4, 5]
    for score in properties["score"]["enum"]:
        assert parse_structured(json.dumps(dict(zip(properties, ("a", score), strict=True)))) == score
