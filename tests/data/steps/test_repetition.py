"""Answers caught in a loop are found, whatever the loop is made of; ordinary prose is not."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from posttrain.data.steps.repetition import Repetition, repeated_share
from posttrain.recipe.schema_data import RepetitionFilter
from tests.data.steps.made import refuses
from tests.data.steps.real import real_rows

WORDS = ["järvi", "metsä", "talo", "kuu", "tie", "vesi", "meri", "puu", "kivi", "lintu", "sade", "tuuli"]
STEP = Repetition(RepetitionFilter())


def words(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [rng.choice(WORDS) for _ in range(count)]


def test_loops_are_found() -> None:
    prose = " ".join(words(120))
    loops = [
        prose + " ja sitten hän sanoi ettei tiedä" * 30,
        prose + "\n" + "Toinen rivi tässä on aina sama.\n" * 30,
        "aaaa" * 200,
        prose + " " + "abcdef" * 100,
        "".join(f"{number}. Sama asia uudelleen ja uudelleen tässä\n" for number in range(1, 40)),
        "我不知道为什么会这样。" * 30,
    ]
    whole = [
        prose,
        "Kyllä. " * 5,
        "天气很好，我们去公园散步吧。孩子们在草地上踢球，老人坐在长椅上聊天，小狗跑来跑去，大家都很开心。傍晚的时候下了一点雨，我们就回家吃饭了。",
        "\n".join(f"{number}. {' '.join(words(6, number))}" for number in range(40)),
        prose + "\n" + "=" * 90,
        "for x in y:\n    return None\n" + "\n".join(f"    if a == {n}:\n        return {n}" for n in range(8)),
    ]
    assert refuses(STEP, [*loops, *whole]) == loops


@pytest.mark.parametrize("ngram", [1, 2, 3, 8])
def test_the_share_is_that_of_a_plain_count(ngram: int) -> None:
    rng = random.Random(ngram)
    for _ in range(200):
        text = [rng.choice("abcd") for _ in range(rng.randrange(40))] * rng.choice([1, 1, 2, 3])
        counts = Counter(tuple(text[i : i + ngram]) for i in range(len(text) - ngram + 1))
        expected = sum(n - 1 for n in counts.values()) / max(1, counts.total())
        assert repeated_share(text, ngram) == pytest.approx(expected)
        bound = rng.random()
        assert (repeated_share(text, ngram, bound) > bound) == (expected > bound)


def test_the_bound_and_the_least_number_of_words_are_the_recipes() -> None:
    text = " ".join(words(60)) + " " + " ".join(words(60))  # half of it has occurred before
    assert refuses(Repetition(RepetitionFilter(max_share=0.55)), [text]) == []
    assert refuses(Repetition(RepetitionFilter(max_share=0.4)), [text]) == [text]
    assert refuses(Repetition(RepetitionFilter(max_share=0.4, min_words=121)), [text]) == []


def test_hardly_any_real_answer_is_refused(real_data: Path) -> None:
    answers = [row.messages[-1]["content"] for row in real_rows(real_data)]
    assert len(refuses(STEP, answers)) < 0.001 * len(answers)
