"""The English verdicts beside those of lm-eval's verifiers: equal, or different for a reason that is written down.

lm-eval's counts of sentences need the punkt_tab data of NLTK, which neither package brings: they are compared where
`NLTK_DATA` leads to it. Without it their tokenizer gets the sentences of ours, one by one: it takes the period off the
last word of each.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from posttrain.assets import locate
from posttrain.evaluate.ifeval import VERIFIERS, Prompt, load_prompts, loose, parse_prompts, verify
from posttrain.evaluate.ifeval.rules import ENGLISH
from posttrain.evaluate.ifeval.sentences import split_sentences
from tests.evaluate.ifeval.compliant import compliant

pytestmark = pytest.mark.slow

SENTENCES = "length_constraints:number_sentences"
RANDOM_THERE = {"language:response_language", "change_case:english_capital", "change_case:english_lowercase"}
EQUAL = set(VERIFIERS) - RANDOM_THERE - {SENTENCES}
DIFFERENCES = Path(sys.modules["posttrain.evaluate.ifeval"].__file__ or "").parent / "DIFFERENCES.md"

# Id, arguments, response, their verdict or the error that it ends in, ours: a case of each row of DIFFERENCES.md whose
# verdict is not left to chance there.
DIFFERENT: list[tuple[str, dict[str, Any], str, bool | str, bool]] = [
    ("keywords:existence", {"keywords": ["a.b"]}, "axb", True, False),
    ("keywords:existence", {"keywords": ["(a"]}, "(a", "error", True),
    ("keywords:frequency", {"keyword": "what?", "frequency": 2, "relation": "at least"}, "wha what", True, False),
    ("keywords:forbidden_words", {"forbidden_words": ["$5"]}, "It is $5.", True, False),
    ("detectable_content:postscript", {"postscript_marker": "PS"}, "Two tips.", True, False),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Part (a)", "num_sections": 1},
        "Part (a) 1",
        False,
        True,
    ),
    ("detectable_format:json_format", {}, "[" * 200_000, "error", False),
]
# Texts whose numbers of sentences differ, theirs first.
COUNTED: list[tuple[str, int, int]] = [
    ("It runs on many machines, e.g. phones.", 2, 1),
    ("He is ranked No. 1 in the world.", 2, 1),
    ("It ends.[4] It begins.", 2, 2),
    ("***", 1, 0),
]


@pytest.fixture(scope="module")
def theirs() -> Iterator[ModuleType]:
    """Return lm-eval's module of verdicts; what it imports for nothing but languages is stood in for where absent."""
    pytest.importorskip("lm_eval.tasks.ifeval", reason="lm-eval is not installed")
    nltk = pytest.importorskip("nltk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk, "download", lambda *arguments, **options: None)
        stand_ins: dict[str, dict[str, type]] = {
            "immutabledict": {"immutabledict": dict},
            "langdetect": {"LangDetectException": ValueError},
        }
        for name, members in stand_ins.items():
            if find_spec(name) is None:
                stand_in = ModuleType(name)
                vars(stand_in).update(members)
                patch.setitem(sys.modules, name, stand_in)
        module = importlib.import_module("lm_eval.tasks.ifeval.utils")
        if not has_punkt():
            split = nltk.word_tokenize
            patch.setattr(
                nltk,
                "word_tokenize",
                lambda text: [
                    word for part in split_sentences(text, ENGLISH) for word in split(part, preserve_line=True)
                ],
            )
        yield module


def has_punkt() -> bool:
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        return False
    return True


def verdicts(theirs: ModuleType, prompt: Prompt, response: str) -> tuple[list[bool], list[bool]]:
    """Return lm-eval's strict and loose verdicts on the instructions of a prompt."""
    example = theirs.InputExample(
        key=prompt.key,
        instruction_id_list=[instruction.id for instruction in prompt.instructions],
        prompt=prompt.prompt,
        kwargs=[dict(instruction.arguments) for instruction in prompt.instructions],
    )
    judges: list[Callable[..., Any]] = [
        theirs.test_instruction_following_strict,
        theirs.test_instruction_following_loose,
    ]
    strict, easy = (judge(example, response).follow_instruction_list for judge in judges)
    return list(map(bool, strict)), list(map(bool, easy))


def compared(prompts: list[Prompt], kinds: set[str]) -> list[Prompt]:
    """Return the prompts with the instructions of some kinds alone, and none that lm-eval replaces at random."""
    kept = []
    for prompt in prompts:
        instructions = tuple(
            instruction
            for instruction in prompt.instructions
            if instruction.id in kinds and str(instruction.arguments.get("letter", "a")).isalpha()
        )
        if instructions:
            kept.append(Prompt(prompt.key, prompt.prompt, prompt.language, instructions))
    return kept


class Material(NamedTuple):
    """English prompts, and texts in English and Finnish to try on them."""

    prompts: list[Prompt]
    texts: list[str]


@pytest.fixture(scope="module", params=["samples", "real"])
def material(request: pytest.FixtureRequest) -> Material:
    """Return the package's samples, and in another turn the real rows; that is skipped where they are absent."""
    if request.param == "samples":
        rows = Path(locate("builtin:samples/messages.jsonl")).read_text(encoding="utf-8").splitlines()
        texts = [message["content"] for row in rows for message in json.loads(row)["messages"]]
        return Material(load_prompts("builtin:samples/ifeval-en.jsonl", "en"), texts)
    folder: Path = request.getfixturevalue("real_data")
    files = [folder / f"oasst1-{language}-messages.jsonl" for language in ("en", "fi")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return Material(load_prompts(folder / "ifeval-en.jsonl", "en"), [json.loads(line)["text"] for line in lines])


def responses(prompt: Prompt, texts: list[str], draw: random.Random) -> list[str]:
    """Return responses of many kinds: right ones, cut ones, any text, and each with marks of Markdown."""
    right = [compliant(instruction.id, instruction.arguments, "en") for instruction in prompt.instructions]
    any_text = draw.sample(texts, 3)
    plain = [*right, "\n\n".join(right), *any_text, f"{right[0]}\n\n{any_text[0]}", prompt.prompt]
    cut = [text[: draw.randint(0, len(text))] for text in plain]
    marked = [
        draw.choice(
            [
                text.upper(),
                text.lower(),
                text.title(),
                f"Sure, here it is:\n{text}\nI hope this helps!",
                "\n".join(f"* {line}" for line in text.split("\n")),
                "\n".join(f"{number}. **{line}**" for number, line in enumerate(text.split("\n"), 1)),
                text.replace(" ", "\n***\n", 3),
                text.replace(". ", ".\n\n"),
                f'"{text}"',
                f"<<{text}>>\n```json\n{json.dumps(text)}\n```",
                f"{text}\n******\n{text[::-1]}",
                f"{text}\nP.P.S. [x] *y* SECTION 1\tSection 2",
            ]
        )
        for text in plain
    ]
    return [*plain, *cut, *marked, "", " \n ", "*", "\n\n\n", '""', "[]", "``````"]


def test_equal_wherever_nothing_is_left_to_chance(theirs: ModuleType, material: Material) -> None:
    draw = random.Random(11)
    seen: Counter[tuple[str, bool]] = Counter()
    different = []
    for prompt in compared(material.prompts, EQUAL):
        for response in responses(prompt, material.texts, draw):
            strict, easy = verdicts(theirs, prompt, response)
            ours = verify(prompt, response), loose(prompt, response)
            for instruction, *both in zip(prompt.instructions, strict, easy, *ours, strict=True):
                seen[instruction.id, both[0]] += 1
                if both[:2] != both[2:]:
                    different.append((instruction, both, response))
    assert different == []
    assert {name for name, followed in seen if followed} == EQUAL, "some kind was never followed"
    assert {name for name, followed in seen if not followed} == EQUAL, "some kind was always followed"


def test_words_in_capitals_are_counted_alike(theirs: ModuleType, material: Material) -> None:
    import nltk

    from posttrain.evaluate.ifeval.text import count_capital_words

    different = [
        text
        for answer in random.Random(13).sample(material.texts, 400)
        for text in (answer, answer.upper(), answer.title())
        if count_capital_words(text, ENGLISH) != sum(word.isupper() for word in nltk.word_tokenize(text))
    ]
    assert different == []
    footnote = "MACY'S.[11] ALTHOUGH"
    assert (len(nltk.word_tokenize(footnote)), count_capital_words(footnote, ENGLISH)) == (5, 3)


def test_sentences_are_nearly_always_counted_alike(theirs: ModuleType, material: Material) -> None:
    if not has_punkt():
        pytest.skip("NLTK's punkt_tab is not here; set NLTK_DATA to a folder that has tokenizers/punkt_tab")
    util = importlib.import_module("lm_eval.tasks.ifeval.instructions_util")
    for text, there, here in COUNTED:
        assert (util.count_sentences(text), len(split_sentences(text, ENGLISH))) == (there, here), text
    texts = [text for text in material.texts if text.isascii()]
    equal = sum(util.count_sentences(text) == len(split_sentences(text, ENGLISH)) for text in texts)
    assert equal / len(texts) > 0.95
    draw = random.Random(12)
    outcomes: Counter[bool] = Counter()
    for prompt in compared(material.prompts, {SENTENCES}):
        for response in draw.sample(texts, 20):
            outcomes[verdicts(theirs, prompt, response)[0] == verify(prompt, response)] += 1
    assert outcomes[True] / outcomes.total() > 0.98


@pytest.mark.parametrize(("name", "arguments", "response", "there", "here"), DIFFERENT)
def test_each_difference_is_as_written_down(
    theirs: ModuleType, name: str, arguments: dict[str, Any], response: str, there: bool | str, here: bool
) -> None:
    row = {"key": 1, "prompt": "Please.", "instruction_id_list": [name], "kwargs": [arguments]}
    (prompt,) = parse_prompts([row], "en", "rows")
    assert verify(prompt, response) == [here]
    if there == "error":
        with pytest.raises(Exception):  # noqa: B017, PT011 - which one is theirs to choose
            verdicts(theirs, prompt, response)
    else:
        assert verdicts(theirs, prompt, response)[0] == [there]


def test_every_kind_that_differs_is_in_the_list() -> None:
    written = DIFFERENCES.read_text(encoding="utf-8")
    for name in {case[0] for case in DIFFERENT} | RANDOM_THERE | {SENTENCES, "keywords:letter_frequency"}:
        assert f"`{name}`" in written
