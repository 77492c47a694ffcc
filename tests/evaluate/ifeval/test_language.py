"""The language of a response, short and long."""

from __future__ import annotations

import pytest

from posttrain.errors import UserError
from posttrain.evaluate.ifeval import check_ready, load_prompts, parse_prompts
from posttrain.evaluate.ifeval.language import is_in_language
from tests.evaluate.ifeval.compliant import SENTENCES


@pytest.mark.parametrize("language", sorted(SENTENCES))
def test_each_sentence_is_in_its_language_alone(language: str) -> None:
    assert [code for code in SENTENCES if is_in_language(SENTENCES[language], code)] == [language]


@pytest.mark.parametrize("response", ["123 + 456 = 579", "```python\nprint('hello there')\n```", "🙂 ***"])
def test_no_letter_outside_code_contradicts_no_language(response: str) -> None:
    assert is_in_language(response, "fi")
    assert is_in_language(response, "hi")


@pytest.mark.parametrize(
    ("response", "language", "expected"),
    [
        ("OK.", "fi", True),
        ("OK.", "en", True),
        ("OK.", "hi", False),
        ("नमस्ते", "hi", True),
        ("नमस्ते", "fi", False),
        ("こんにちは", "ja", True),
        ("Да.", "ru", True),
        ("Да.", "fi", False),
    ],
)
def test_of_a_few_letters_the_script_decides(response: str, language: str, expected: bool) -> None:
    assert is_in_language(response, language) is expected


@pytest.mark.parametrize("language", ["en", "fi"])
def test_case_code_and_names_do_not_matter(language: str) -> None:
    sentence, other = SENTENCES[language], SENTENCES["fi" if language == "en" else "en"]
    for written in (sentence, sentence.upper(), sentence.lower(), sentence.title()):
        assert is_in_language(written, language)
    assert is_in_language(f"{sentence}\n\n```\n{(other + chr(10)) * 20}```", language)
    assert is_in_language(f"{sentence} Helsinki, London, Stockholm, Johann Sebastian Bach, Virtanen.", language)
    assert not is_in_language(other, language)


def test_heliport_is_needed_only_where_a_prompt_demands_a_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttrain.data.steps.identifier.find_spec", lambda name: None)
    row = {"key": 1, "prompt": "Hi", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    check_ready(parse_prompts([row], "en", "rows"))
    with pytest.raises(UserError, match=r"IFEval.*heliport.*\[language\]"):
        check_ready(load_prompts("builtin:samples/ifeval-fi.jsonl", "fi"))


def test_a_language_that_cannot_be_told_is_reported_with_its_prompt() -> None:
    rows = [
        {
            "key": f"row-{code}",
            "prompt": "Hi",
            "instruction_id_list": ["language:response_language"],
            "kwargs": [kwargs],
        }
        for code, kwargs in {"qqq": {"language": "qqq"}, "fi": {"language": "Finnish"}}.items()
    ]
    prompts = parse_prompts(rows, "en", "rows")
    assert prompts[1].instructions[0].arguments == {"language": "fi"}
    check_ready(prompts[1:])
    with pytest.raises(UserError) as caught:
        check_ready(prompts)
    assert len(caught.value.problems) == 1
    assert "'row-qqq'" in caught.value.problems[0]
