from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.conversions import convert, messages, problems


def record(**columns: Any) -> dict[str, Any]:
    return {
        "prompt": "Q",
        "prompt_id": "p",
        "chosen": messages("Q", "A"),
        "rejected": messages("Q", "B"),
        "messages": messages("Q", "A"),
        "score_chosen": 8.5,
        "score_rejected": 5.0,
        **columns,
    }


def test_margin_and_prompt() -> None:
    (row,), _ = convert("ultrafeedback", "preference", [record()], start=5)
    assert row.prompt == messages("Q")
    assert [turn["content"] for turn in (*row.chosen, *row.rejected)] == ["A", "B"]
    assert row.margin == 3.5
    assert row.license == "MIT"
    assert json.loads(row.meta) == {"id": "p", "row": 5}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"score_rejected": 8.5}, "tie"),
        ({"score_rejected": 9.0}, "chosen scores below rejected"),
        ({"score_rejected": 7.5}, "margin below min_margin"),
        ({"score_chosen": None}, "missing column"),
        ({"score_chosen": "8"}, "score_chosen is not a number"),
        ({"score_chosen": float("nan")}, "score_chosen is not a number"),
        ({"rejected": messages("Q", "A ")}, "chosen equals rejected"),
        ({"rejected": messages("Q", "")}, "empty content"),
        ({"rejected": messages("Q", None)}, "content is not text"),  # type: ignore[arg-type]
        ({"rejected": messages("R", "B")}, "chosen and rejected differ before the last turn"),
        ({"prompt": "R"}, "prompt is not what chosen and rejected answer"),
        ({"chosen": messages("Q")}, "no assistant turn"),
    ],
)
def test_reasons(columns: dict[str, Any], reason: str) -> None:
    _, refused = convert("ultrafeedback", "preference", [record(**columns)], min_margin=2.0)
    assert [row.kind for row in refused] == [reason]


def test_the_least_margin_itself_stays() -> None:
    assert len(convert("ultrafeedback", "preference", [record()], min_margin=3.5)[0]) == 1


@pytest.mark.parametrize(("margin", "at_fault"), [(0.0, []), (3.5, []), (-1.0, ["min_margin"]), (10.0, ["min_margin"])])
def test_options(margin: float, at_fault: list[str]) -> None:
    assert problems("ultrafeedback", min_margin=margin) == at_fault
