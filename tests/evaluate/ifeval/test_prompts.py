"""Reading prompts, and what is said about bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import UserError
from posttrain.evaluate.ifeval import VERIFIERS, Instruction, load_prompts, parse_prompts

ROW: dict[str, Any] = {
    "key": 7,
    "prompt": "Write.",
    "instruction_id_list": ["length_constraints:number_words", "punctuation:no_comma"],
    "kwargs": [{"num_words": 5.0, "relation": "at least", "keywords": None}, None],
}


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "prompts.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def problems(rows: list[Any], language: str = "en") -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_prompts(rows, language, "rows")
    return caught.value.problems


def test_nulls_are_left_out_and_numbers_are_whole(tmp_path: Path) -> None:
    (prompt,) = load_prompts(write(tmp_path, ROW, "  "), "en")
    assert prompt.key == 7
    assert prompt.language == "en"
    assert prompt.instructions == (
        Instruction("length_constraints:number_words", {"num_words": 5, "relation": "at least"}),
        Instruction("punctuation:no_comma", {}),
    )
    assert parse_prompts([ROW], "en", "rows") == [prompt]


def test_real_prompts(real_data: Path) -> None:
    prompts = load_prompts(real_data / "ifeval-en.jsonl", "en")
    assert len(prompts) == 540
    assert {instruction.id for prompt in prompts for instruction in prompt.instructions} == set(VERIFIERS)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"key": None}, "rows: row 1: key: must be a whole number or text, not None"),
        ({"prompt": " "}, "rows: row 1: prompt: must be text, not ' '"),
        ({"language": "fi"}, "rows: row 1: language: is 'fi', but the prompts are read as 'en'"),
        ({"instruction_id_list": []}, "rows: row 1: instruction_id_list: must be a list of instruction ids, not []"),
        ({"kwargs": [{}]}, "rows: row 1: kwargs: must be a list of 2 mappings, one for each instruction, not [{}]"),
        (
            {"instruction_id_list": ["length_constraints:number_words", "punctuation:no_commas"]},
            (
                "rows: row 1: instruction_id_list[1]: there is no instruction 'punctuation:no_commas'; "
                "did you mean punctuation:no_comma?"
            ),
        ),
        ({"kwargs": [ROW["kwargs"][0], 3]}, "rows: row 1: kwargs[1]: must be a mapping, not 3"),
        ({"kwargs": [ROW["kwargs"][0], {"a": 1}]}, "rows: row 1: kwargs[1].a: punctuation:no_comma takes nothing"),
    ],
)
def test_a_bad_row(change: dict[str, Any], expected: str) -> None:
    assert problems([{**ROW, **change}]) == [expected]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("keywords:existence", {"keywords": "boat"}, "keywords: keywords:existence needs a list of texts, not 'boat'"),
        ("keywords:existence", {"keywords": ["a", " "]}, "needs a list of texts, none of them blank"),
        (
            "keywords:letter_frequency",
            {"letter": "ab", "let_frequency": 1, "let_relation": "at least"},
            "one character",
        ),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 0}, "needs a whole number from 1 on, not 0"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": True}, "needs a whole number from 1 on, not True"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2.5}, "needs a whole number from 1 on, not 2.5"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": float("inf")}, "a whole number from 1 on, not inf"),
        ("length_constraints:number_paragraphs", {}, "needs a whole number from 1 on, not None"),
        ("length_constraints:number_words", {"num_words": 1, "relation": "at most"}, "`less than` or `at least`"),
        ("length_constraints:number_words", {"num_words": 1, "relation": ["x"]}, "`less than` or `at least`"),
        ("language:response_language", {"language": 5}, "needs the code of a language, such as fi, not 5"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "yes"},
            "kwargs[0].nth_paragraph: is 3, of only 2 paragraphs",
        ),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "two words"},
            "needs one word",
        ),
    ],
)
def test_a_bad_argument(name: str, arguments: dict[str, Any], expected: str) -> None:
    (problem,) = problems([{**ROW, "instruction_id_list": [name], "kwargs": [arguments]}])
    assert expected in problem


def test_what_is_wrong_is_reported_together_with_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, ROW, "{not json", "", {**ROW, "prompt": None, "kwargs": None}, ROW)
    with pytest.raises(UserError) as caught:
        load_prompts(file, "en")
    assert [problem.removeprefix(str(file))[:20] for problem in caught.value.problems] == [
        ":2: not a JSON objec",
        ":4: prompt: must be ",
        ":4: kwargs: must be ",
        ":5: key: 7 is the ke",
    ]


def test_a_file_of_another_kind_is_cut_short() -> None:
    found = problems([{"text": "Hello"}] * 30)
    assert len(found) == 21
    assert found[-1] == "rows: 70 more problems"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes("yö".encode("latin-1"))
    for path, expected in [
        (tmp_path / "none.jsonl", "there is no such file"),
        (tmp_path, "cannot be read"),
        (latin, "cannot be read as UTF-8"),
        (write(tmp_path), "there is no IFEval prompt in it"),
    ]:
        with pytest.raises(UserError, match=expected):
            load_prompts(path, "en")


def test_a_language_without_rules() -> None:
    with pytest.raises(UserError, match=r"no rules for the language 'sv'; known: en, fi"):
        load_prompts("builtin:samples/ifeval-fi.jsonl", "sv")


def test_finnish_prompts_are_not_read_as_english() -> None:
    with pytest.raises(UserError, match="is 'fi', but the prompts are read as 'en'"):
        load_prompts("builtin:samples/ifeval-fi.jsonl", "en")
