"""Tokens of chat templates in the text are found, ordinary notation is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain.data.rows import Row
from posttrain.data.steps.markup import Markup
from posttrain.recipe.schema_data import MarkupFilter
from tests.data.steps.made import pair, reasons, refuses, sft

STEP = Markup(MarkupFilter())


@pytest.mark.parametrize(
    "token",
    [
        "<|im_end|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "[INST]",
        "<<SYS>>",
        "<start_of_turn>",
        "<｜User｜>",
        "<|x_9|>",
    ],
)
def test_a_token_is_found_in_any_message(token: str) -> None:
    dirty = f"ennen {token} jälkeen"
    rows: list[Row] = [sft(dirty), sft("ok", prompt=dirty), sft("ok", system=dirty), pair(dirty, "b"), pair("a", dirty)]
    assert reasons(STEP, rows) == [f"chat markup in the text: {token}"] * 5


def test_html_code_and_operators_are_no_tokens() -> None:
    clean = [
        "<s>vanha hinta</s> <b>uusi</b>",
        "cat <filename> | grep '<pad>'",
        "f <| g |> h",
        "a[inst] = list[int]",
        "x <|> y, <| |>, a < b || c > d",
        "[1, 2, 3] and [link](https://example.org)",
    ]
    assert refuses(STEP, clean) == []


def test_tokens_of_the_recipe_and_of_the_tokenizer_count(tmp_path: Path) -> None:
    tokenizer_file = tmp_path / "tokenizer.json"
    added = [{"content": "</s>", "special": True}, {"content": "<tool>", "special": False}]
    tokenizer_file.write_text(json.dumps({"added_tokens": added}), encoding="utf-8")
    step = Markup(MarkupFilter(special_tokens=["### Human:"]), tokenizer_file)
    texts = ["loppu</s>", "<tool> on sana", "### Human: hei", "tavallinen"]
    assert refuses(step, texts) == ["loppu</s>", "### Human: hei"]
