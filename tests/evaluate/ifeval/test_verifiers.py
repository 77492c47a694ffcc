"""Every kind of instruction, followed and not followed, in English and in Finnish."""

from __future__ import annotations

from typing import Any
from unicodedata import normalize

import pytest

from posttrain.evaluate.ifeval import VERIFIERS, Prompt, load_prompts, parse_prompts, verify
from tests.evaluate.ifeval.compliant import compliant

EN = "The lake is calm and the boat is red."
FI = "Järvi on tyyni ja vene on punainen."


def prompt(name: str, language: str, /, **arguments: Any) -> Prompt:
    row = {"key": 1, "prompt": "Please.", "instruction_id_list": [name], "kwargs": [arguments]}
    return parse_prompts([row], language, "rows")[0]


def follows(name: str, language: str, response: str, /, **arguments: Any) -> bool:
    return verify(prompt(name, language, **arguments), response) == [True]


# Language, id, arguments, a response that follows the instruction, and one that does not by little.
CASES: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("en", "keywords:existence", {"keywords": ["boat", "art"]}, "A party on a Boat.", "A party on a coat."),
    ("fi", "keywords:existence", {"keywords": ["vene", "EU"]}, "Vene, eu.", "Vene. Se on EU:n."),
    ("en", "keywords:frequency", {"keyword": "ox", "frequency": 2, "relation": "at least"}, "Ox, fox", "An ox"),
    ("fi", "keywords:frequency", {"keyword": "yö", "frequency": 2, "relation": "at least"}, "Yö ja yö.", "Yö, yöllä"),
    ("en", "keywords:forbidden_words", {"forbidden_words": ["art", "fox"]}, "A party, foxes", "A party, a FOX."),
    ("fi", "keywords:forbidden_words", {"forbidden_words": ["yö", "auto"]}, "yöllä, linja-auto", "On Yö."),
    (
        "en",
        "keywords:letter_frequency",
        {"letter": "O", "let_frequency": 3, "let_relation": "at least"},
        "Oh, no, so",
        "Oh, no",
    ),
    (
        "fi",
        "keywords:letter_frequency",
        {"letter": "ä", "let_frequency": 3, "let_relation": "less than"},
        "Äiti, aa, öö, mä",
        "Äiti elää",
    ),
    ("en", "language:response_language", {"language": "fi"}, FI, EN),
    ("fi", "language:response_language", {"language": "en"}, EN, FI),
    (
        "en",
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        "Dr. Doe.",
        "No. Yes.",
    ),
    (
        "fi",
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        "Esim. 3. luku alkaa klo 12.30.",
        "Esim. 3. luku. Se alkaa.",
    ),
    ("en", "length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "A red-hot", "A red"),
    (
        "fi",
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        "EU:n raja on",
        "EU:n raja-asema",
    ),
    ("en", "length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n***\nTwo\n***", "One\n***\n\n***\nTwo"),
    ("fi", "length_constraints:number_paragraphs", {"num_paragraphs": 2}, "Yksi *** Kaksi", "Yksi\n\nKaksi"),
    (
        "en",
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Fish"},
        "One.\n\n'fish', two.",
        "One.\n\nFishes, two.",
    ),
    (
        "fi",
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "äiti"},
        "Yksi.\n\n”Äiti” tuli.",
        "Yksi.\n\nÄiti-ihminen tuli.",
    ),
    ("en", "detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [address]", "[name], (age)"),
    ("fi", "detectable_content:number_placeholders", {"num_placeholders": 2}, "[nimi] [ikä]", "[nimi\nikä]"),
    ("en", "detectable_content:postscript", {"postscript_marker": "P.S."}, "Yes.\nP. S. No.", "Yes.\nPS. No."),
    ("fi", "detectable_content:postscript", {"postscript_marker": "JK."}, "Hei.\n\n**JK.** Moi.", "Hei. JK. Moi."),
    ("en", "detectable_format:number_bullet_lists", {"num_bullets": 2}, "Two:\n* one\n- two", "Two:\n* one\n** two"),
    ("fi", "detectable_format:number_bullet_lists", {"num_bullets": 2}, "* yksi\n * äö", "* yksi\n* kaksi\n* kolme"),
    ("en", "detectable_format:title", {}, "<<The lake>>", "<The lake> << >>"),
    ("fi", "detectable_format:title", {}, "<<Järvi>>", "<<Järvi\n>>"),
    ("en", "detectable_format:constrained_response", {}, "So: My answer is no.", "My answer is no"),
    ("fi", "detectable_format:constrained_response", {}, "Vastaukseni on kyllä.", "Vastaukseni on kylla."),
    ("en", "detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a\n* and ** **"),
    ("fi", "detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*yö* ja *ä*", "**yö** ja _ä_"),
    (
        "en",
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\na\nSECTION 2\nb",
        "SECTION 1\na\nSection 2\nb",
    ),
    (
        "fi",
        "detectable_format:multiple_sections",
        {"section_spliter": "Päivä", "num_sections": 2},
        "Päivä 1\na\nPäivä 2\nb",
        "Päivä 1\na\nPäivä kaksi\nb",
    ),
    ("en", "detectable_format:json_format", {}, '```json\n{"a": 1}\n```', '{"a": 1} is it.'),
    ("fi", "detectable_format:json_format", {}, '["ä", 1]', "['ä', 1]"),
    ("en", "combination:repeat_prompt", {"prompt_to_repeat": "Why?"}, "WHY? So.", "Why! So. Why?"),
    ("fi", "combination:repeat_prompt", {"prompt_to_repeat": "Mikä yö?"}, "mikä YÖ? Tämä.", "Tämä. Mikä yö?"),
    ("en", "combination:two_responses", {}, "One ****** Two", "One ****** One"),
    ("fi", "combination:two_responses", {}, "******\nYksi ****** Yö", "Yksi ****** ****** Yö"),
    ("en", "startend:end_checker", {"end_phrase": "That is all."}, '"So. that IS all."', "That is all. So."),
    ("fi", "startend:end_checker", {"end_phrase": "Hyvää yötä!"}, "”No niin. HYVÄÄ YÖTÄ!”", "Hyvää yötä! Moi."),
    ("en", "startend:quotation", {}, '"Yes."', "“Yes.”"),
    ("fi", "startend:quotation", {}, "”Kyllä.”", "”Kyllä."),
    (
        "en",
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "NASA and RED-HOT",
        "NASA and Red",
    ),
    (
        "fi",
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "YÖ ja EU:N",
        "YÖ ja EU:n",
    ),
    ("en", "change_case:english_capital", {}, EN.upper(), FI.upper()),
    ("fi", "change_case:english_capital", {}, FI.upper(), EN.upper()),
    ("en", "change_case:english_lowercase", {}, EN.lower(), EN),
    ("fi", "change_case:english_lowercase", {}, FI.lower(), EN.lower()),
    ("en", "punctuation:no_comma", {}, "Red; blue", "Red, blue"),
    ("fi", "punctuation:no_comma", {}, "Pituus on 3.5 m.", "Pituus on 3,5 m."),
]


@pytest.mark.parametrize(
    ("language", "name", "arguments", "right", "wrong"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES]
)
def test_followed_and_not_followed(language: str, name: str, arguments: dict[str, Any], right: str, wrong: str) -> None:
    assert follows(name, language, right, **arguments)
    assert not follows(name, language, wrong, **arguments)


def test_every_kind_is_tried_in_both_languages() -> None:
    assert len(VERIFIERS) == 25
    assert {(language, name) for language, name, *_ in CASES} == {(x, name) for x in ("en", "fi") for name in VERIFIERS}


@pytest.mark.parametrize("language", ["en", "fi"])
def test_the_samples_hold_every_kind_and_can_be_followed(language: str) -> None:
    prompts = load_prompts(f"builtin:samples/ifeval-{language}.jsonl", language)
    assert {instruction.id for prompt in prompts for instruction in prompt.instructions} == set(VERIFIERS)
    for prompt in prompts:
        for index, instruction in enumerate(prompt.instructions):
            assert verify(prompt, compliant(instruction.id, instruction.arguments, language))[index], instruction


@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_a_blank_response_follows_nothing(name: str) -> None:
    (arguments,) = [case[2] for case in CASES if case[:2] == ("en", name)]
    assert not follows(name, "en", " \n\t", **arguments)


def test_finnish_letters_may_be_composed_of_two_characters() -> None:
    letters = {"letter": "ä", "let_frequency": 2, "let_relation": "at least"}
    assert follows("keywords:letter_frequency", "fi", normalize("NFD", "äiti ja isä"), **letters)
    letters["letter"] = normalize("NFD", "ä")
    assert follows("keywords:letter_frequency", "fi", "äiti ja isä", **letters)
    assert follows("keywords:existence", "fi", "yö", keywords=[normalize("NFD", "yö")])
    one = {"num_words": 2, "relation": "less than"}
    assert follows("length_constraints:number_words", "fi", normalize("NFD", "käsi"), **one)


@pytest.mark.parametrize("language", ["en", "fi"])
def test_one_letter_of_the_other_case_is_one_too_many(language: str) -> None:
    sentence = {"en": EN, "fi": FI}[language]
    assert not follows("change_case:english_capital", language, f"{sentence.upper()} a")
    assert not follows("change_case:english_lowercase", language, f"{sentence.lower()} A")


def test_a_single_quotation_mark_is_no_pair() -> None:
    assert not follows("startend:quotation", "en", '"')
    assert not follows("startend:quotation", "fi", "”")


@pytest.mark.parametrize("response", ["Hei.\nP.P.S. Moi.", "P. P. S. Moi.", "> *p.p.s.* moi"])
def test_a_marker_may_have_blanks_after_its_periods(response: str) -> None:
    assert follows("detectable_content:postscript", "fi", response, postscript_marker="P.P.S.")
    assert not follows("detectable_content:postscript", "fi", response, postscript_marker="P.S.")


def test_keywords_are_taken_literally() -> None:
    assert follows("keywords:existence", "en", "C++ (or C)", keywords=["C++", "(or"])
    assert not follows("keywords:existence", "en", "axb", keywords=["a.b"])
    assert not follows("keywords:forbidden_words", "en", "Use C++ now", forbidden_words=["C++"])
    part = {"section_spliter": "Part (a)", "num_sections": 1}
    assert follows("detectable_format:multiple_sections", "en", "Part (a) 1", **part)


def test_nested_json_too_deep_to_read_is_none() -> None:
    assert not follows("detectable_format:json_format", "en", "[" * 200_000)
