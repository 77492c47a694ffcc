"""Prompts of evaluations, planted in rows and looked for."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.duplicates import words
from posttrain.data.rows import Message, Row, preference_row, sft_row, turn
from posttrain.data.steps.base import Rejected
from posttrain.data.steps.decontaminate import EMBEDDED_CHARS, Decontaminate, EvalItem, load_eval_items
from posttrain.errors import UserError
from posttrain.recipe.schema_data import Decontamination, EvalSet

EIGHT = "one two three four five six seven eight"
OPTIONS = Decontamination()


def item(*texts: str, label: str = "set", name: str = "1", language: str = "en") -> EvalItem:
    return EvalItem(label, name, language, texts)


def row(*turns: str, language: str = "en", system: str | None = None) -> Row:
    messages: list[Message] = [] if system is None else [turn("system", system)]
    for text in turns:
        messages += [turn("user", text), turn("assistant", "An answer.")]
    return sft_row(messages, source="s", language=language, license=None, meta={}, units=(0,))


def reason(step: Decontaminate, given: Row) -> str | None:
    (result,) = step([given])
    if isinstance(result, Rejected):
        return result.reason
    assert result is given
    return None


def found(items: Sequence[EvalItem], given: Row, options: Decontamination = OPTIONS) -> bool:
    return reason(Decontaminate(options, items), given) is not None


# Reading the sets


def write(path: Path, records: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("record", "name", "texts"),
    [
        ({"key": 1000, "prompt": "P"}, "1000", ("P",)),
        ({"question_id": 81, "category": "c", "turns": ["A", "B"]}, "81", ("A", "B")),
        ({"instruction": "I", "output": "O", "dataset": "d"}, "1", ("I",)),
        ({"id": "x", "question": "Q"}, "x", ("Q",)),
        (
            {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]},
            "1",
            ("U",),
        ),
    ],
)
def test_sets_are_read_by_the_columns_of_known_evaluations(
    tmp_path: Path, record: dict[str, Any], name: str, texts: tuple[str, ...]
) -> None:
    path = write(tmp_path / "e.jsonl", [record])
    (one,) = load_eval_items(Decontamination(against=[EvalSet(path=path, name="e", language="English")]))
    assert one == EvalItem("e", name, "en", texts)


def test_a_named_column_and_items_without_id_or_language(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", [{"prompt": "no", "goal": "first"}, {"prompt": "no", "goal": "second"}])
    items = load_eval_items(Decontamination(against=[EvalSet(path=path, column="goal")]))
    assert items == [EvalItem("e.jsonl", "1", "und", ("first",)), EvalItem("e.jsonl", "2", "und", ("second",))]


def test_problems_of_all_sets_are_reported_together_by_their_keys(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", [{"prompt": "P"}])
    other = write(tmp_path / "other.jsonl", [{"prompt": "P"}, {"title": "T"}])
    number = write(tmp_path / "number.jsonl", [{"prompt": 5}])
    bot = write(tmp_path / "bot.jsonl", [{"messages": [{"role": "assistant", "content": "A"}]}])
    blank = write(tmp_path / "blank.jsonl", [{"prompt": " ?! "}])
    empty = write(tmp_path / "empty.jsonl", [])
    against = [
        EvalSet(path=good),
        EvalSet(path=str(tmp_path / "absent.jsonl")),
        EvalSet(path=other),
        EvalSet(path=good, column="goal"),
        EvalSet(path=number),
        EvalSet(path=bot),
        EvalSet(path=blank),
        EvalSet(path=empty),
        EvalSet(path=good, language="Elvish tongue"),
    ]
    with pytest.raises(UserError) as caught:
        load_eval_items(Decontamination(against=against))
    keys = [problem.partition(": ")[0].removeprefix("data.decontaminate.against.") for problem in caught.value.problems]
    assert keys == ["1.path", "2.column", "3.column", "4.column", "5.column", "6.path", "7.path", "8.language"]
    assert "item 2" in caught.value.problems[1]
    assert "title" in caught.value.problems[1]
    assert "'goal'" in caught.value.problems[2]
    assert "prompt" in caught.value.problems[2]


# What counts as contained


def test_the_reason_names_set_item_turn_and_beginning() -> None:
    long = "Compose an engaging\ntravel  blog post about a recent trip to Hawaii, highlighting cultural experiences"
    step = Decontaminate(OPTIONS, [item(long, "Rewrite it, and start every sentence with the letter A", name="81")])
    assert reason(step, row(long)) == (
        "contaminated: set 81 turn 1: Compose an engaging travel blog post about a recent trip to Hawaii, highlighting"
    )
    assert reason(step, row("Hi", "REWRITE IT AND START every sentence with the letter A!")) == (
        "contaminated: set 81 turn 2: Rewrite it, and start every sentence with the letter A"
    )


def test_only_user_turns_count() -> None:
    step = Decontaminate(OPTIONS, [item(EIGHT)])
    assert reason(step, row("Hello", system=EIGHT)) is None
    answered = sft_row(
        [turn("user", "Hello"), turn("assistant", EIGHT)],
        source="s",
        language="en",
        license=None,
        meta={},
        units=(0,),
    )
    assert reason(step, answered) is None
    keys: dict[str, Any] = {"margin": None, "source": "s", "language": "en", "license": None, "meta": {}, "units": (0,)}
    assert reason(step, preference_row([turn("user", "Hello")], EIGHT, "no", **keys)) is None
    assert reason(step, preference_row([turn("user", EIGHT)], "yes", "no", **keys)) is not None


@pytest.mark.parametrize(("kept", "contained"), [(11, False), (12, True)])
def test_threshold_is_the_share_of_the_items_ngrams(kept: int, contained: bool) -> None:
    """An item of 16 words has 9 n-grams of 8; of its first 11 words 4 are found, of 12 words 5."""
    prompt = [f"word{number}" for number in range(16)]
    assert found([item(" ".join(prompt))], row(" ".join([*prompt[:kept], "and", "more"]))) is contained


def test_ngrams_are_gathered_from_all_turns_but_do_not_reach_across_them() -> None:
    prompt = [f"word{number}" for number in range(20)]
    whole = item(" ".join(prompt))
    options = Decontamination(threshold=0.9)
    assert found([whole], row(" ".join(prompt[:14]), " ".join(prompt[6:])), options)
    assert not found([whole], row(" ".join(prompt[:10]), " ".join(prompt[10:])), options)
    assert not found([whole], row(*prompt), options)


def test_n_is_that_of_the_items_language() -> None:
    options = Decontamination(ngram={"default": 8, "fi": 6}, threshold=1.0)
    six = "yksi kaksi kolme neljä viisi kuusi"
    longer = f"{six} seitsemän kahdeksan"
    # Six words in a row of eight: one n-gram of three for Finnish, none for English.
    halved = Decontamination(ngram={"default": 8, "fi": 6}, threshold=0.3)
    assert found([item(longer, language="fi")], row(f"{six} jotain muuta", language="en"), halved)
    assert not found([item(longer, language="en")], row(f"{six} jotain muuta", language="fi"), halved)
    assert found([item(longer, language="en")], row(f"no niin {longer}", language="fi"), options)


def test_an_item_of_no_known_language_is_looked_for_with_the_rows_n() -> None:
    halved = Decontamination(ngram={"default": 8, "fi": 6}, threshold=0.3)
    unknown = [item("yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan", language="und")]
    beginning = "yksi kaksi kolme neljä viisi kuusi jotain muuta"
    assert found(unknown, row(beginning, language="fi"), halved)
    assert not found(unknown, row(beginning, language="en"), halved)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_any_n_finds_an_item_wherever_it_begins(n: int) -> None:
    """No place in the row escapes the shorter n-grams that are looked up first."""
    prompt = [f"word{number}" for number in range(n)]
    options = Decontamination(ngram={"default": n}, threshold=1.0)
    step = Decontaminate(options, [item(" ".join(prompt))])
    for before in range(n + 3):
        text = " ".join([*["before"] * before, *prompt, "after"])
        assert reason(step, row(text)) is not None, before
        assert reason(step, row(text.replace(prompt[-1], "other"))) is None


def test_items_of_several_n_are_found_wherever_they_begin() -> None:
    six, eight = "yksi kaksi kolme neljä viisi kuusi", EIGHT
    step = Decontaminate(OPTIONS, [item(six, language="fi"), item(eight, name="2", language="en")])
    for before in range(10):
        for prompt, name in ((six, "1"), (eight, "2")):
            hit = reason(step, row(" ".join([*["before"] * before, prompt, "after"])))
            assert (hit or "").startswith(f"contaminated: set {name}: "), before


def test_short_items_are_compared_whole() -> None:
    step = Decontaminate(OPTIONS, [item("What about x?"), item("Prove the Pythagorean theorem.", name="2")])
    assert reason(step, row("what about X")) is not None
    assert reason(step, row("Hello", "What about x")) is not None
    assert reason(step, row("And what about x then?")) is None, "too short to mean anything inside a text"
    assert reason(step, row("Now please prove the Pythagorean theorem in two ways.")) is not None
    assert reason(step, row("Prove the theorem. The Pythagorean one.")) is None
    assert reason(step, row("Prove it, or improve the Pythagorean theorem.")) is None
    assert reason(step, row("Prove the", "Pythagorean theorem")) is None


def test_the_length_from_which_short_items_are_looked_for_inside_texts() -> None:
    just, below = "a" * (EMBEDDED_CHARS - 2) + " b", "a" * (EMBEDDED_CHARS - 3) + " b"
    assert found([item(just)], row(f"So {just} it is"))
    assert not found([item(below)], row(f"So {below} it is"))


def test_of_several_items_the_largest_share_then_the_first_is_named() -> None:
    half = " ".join([EIGHT, "nine", *(f"x{number}" for number in range(2))])
    items = [item(half, name="half"), item(f"{EIGHT} nine", name="a"), item(f"{EIGHT} nine", name="b")]
    assert (reason(Decontaminate(OPTIONS, items), row(f"{EIGHT} nine ten")) or "").startswith("contaminated: set a:")


def test_nothing_is_found_where_there_is_nothing_to_find() -> None:
    assert not found([], row(EIGHT))
    assert not found([item("?!"), item(EIGHT)], row("?!"))


# Planted and clean rows


def recased(text: str, rng: random.Random) -> str:
    return rng.choice((text.upper(), text.lower(), text.title()))


def repunctuated(text: str, rng: random.Random) -> str:
    """Part the same words by other signs, blanks and line breaks, and drop the apostrophes."""
    between = (", ", " ", "\n", "; ", " - ", " “", "…  ")
    return "".join(word + rng.choice(between) for word in words(text))


def planted(rng: random.Random, texts: Sequence[tuple[str, str]], clean: Sequence[str]) -> list[Row]:
    """Make a row of each text and its language, in four ways in turn: as it is, re-cased, re-punctuated, embedded."""

    def embedded(text: str, rng: random.Random) -> str:
        return f"{rng.choice(clean)}\n\n{text}\n{rng.choice(clean)}"

    ways: list[Callable[[str, random.Random], str]] = [lambda text, _: text, recased, repunctuated, embedded]
    return [row(ways[number % 4](text, rng), language=language) for number, (text, language) in enumerate(texts)]


SYLLABLES = ["ka", "lo", "mi", "nen", "pä", "ris", "sta", "tö", "va", "yl"]


def sentences(rng: random.Random, count: int, least: int, most: int) -> list[str]:
    """Write texts whose words come back as in real ones: the k-th most frequent with a weight of 1/k, short ones first.

    That frequent words are short matters: a run of 20 characters then holds a rare word, or many words.
    """
    vocabulary = [*SYLLABLES, *(a + b for a in SYLLABLES for b in SYLLABLES)]
    vocabulary += [a + b for a in vocabulary[10:] for b in SYLLABLES]
    weights = [1 / place for place in range(1, len(vocabulary) + 1)]
    texts = []
    for _ in range(count):
        found = rng.choices(vocabulary, weights, k=rng.randint(least, most))
        texts.append(" ".join(found).capitalize() + rng.choice("?.!"))
    return texts


def test_generated_prompts_are_found_and_clean_rows_stay() -> None:
    rng = random.Random(7)
    prompts = sentences(rng, 1_000, least=4, most=60)
    languages = [("en", "fi")[number % 2] for number in range(1_000)]
    items = [item(text, name=str(number), language=languages[number]) for number, text in enumerate(prompts)]
    clean = sentences(rng, 5_000, least=2, most=120)
    step = Decontaminate(OPTIONS, items)
    chosen = rng.sample(range(1_000), 500)
    rows = planted(rng, [(prompts[number], languages[number]) for number in chosen], clean)
    hits = [reason(step, each) or "" for each in rows]
    named = sum(hit.startswith(f"contaminated: set {number}:") for hit, number in zip(hits, chosen, strict=True))
    assert named >= 495
    flagged = [given for given in clean if reason(step, row(given)) is not None]
    assert flagged == []


def test_real_prompts_are_found_and_real_rows_stay(real_data: Path) -> None:
    against = [
        EvalSet(path=str(real_data / "mt-bench-en.jsonl"), name="mt-bench-en", language="en"),
        EvalSet(path=str(real_data / "mt-bench-fi.jsonl"), name="mt-bench-fi", language="fi"),
        EvalSet(path=str(real_data / "ifeval-en.jsonl"), name="ifeval", language="en"),
    ]
    items = load_eval_items(Decontamination(against=against))
    step = Decontaminate(OPTIONS, items)
    dolly = [json.loads(line) for line in (real_data / "dolly-en-fi.jsonl").read_text(encoding="utf-8").splitlines()]
    english = [f"{each['orig_instruction']}\n{each['orig_context']}" for each in dolly]
    clean = [*((text, "en") for text in english)]
    clean += [(f"{each['instruction']}\n{each['context']}", "fi") for each in dolly]
    assert len(clean) >= 5_000
    flagged = [hit for text, language in clean if (hit := reason(step, row(text, language=language)))]
    # That item quotes the beginning of an encyclopedia's article on the Second World War, and so does a row.
    assert [hit for hit in flagged if not hit.startswith("contaminated: ifeval 1999: ")] == []
    assert len(flagged) <= 1

    rng = random.Random(8)
    turns = [(text, each.language) for each in items for text in each.texts]
    rows = planted(rng, rng.sample(turns, 500), english)
    assert sum(reason(step, each) is not None for each in rows) >= 495
