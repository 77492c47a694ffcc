"""Answers that were cut off are found; code, lists, verse and plain answers are let through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain.data.steps.truncation import Truncation
from posttrain.recipe.schema_data import TruncationFilter
from tests.data.steps.made import pair, reasons, refuses, sft
from tests.data.steps.real import real_rows

STEP = Truncation(TruncationFilter())
PROSE = "Vesi kiehuu sadassa asteessa, kun paine on tavallinen. Vuorella paine on pienempi ja vesi kiehuu aiemmin. " * 3


@pytest.mark.parametrize(
    ("meta", "cut"),
    [
        ({"finish_reason": "length"}, True),
        ({"stop_reason": "max_tokens"}, True),
        ({"finish_reason": ["stop", "length"]}, True),
        ({"finish_reason": "stop"}, False),
        ({"finish_reason": None}, False),
        ({"note": "finish_reason was length"}, False),
    ],
)
def test_what_the_source_says_counts(meta: dict[str, Any], cut: bool) -> None:
    [reason] = reasons(STEP, [sft("Valmis.", **meta)])
    assert (reason is not None and reason.startswith("answer cut off, as the source says")) == cut


def test_an_open_fence_is_found_and_a_closed_or_nested_one_is_not() -> None:
    open_ = ["```python\nprint(1)", "a\n```\nx\n```\nb\n~~~js\nf()", "1. Näin:\n   ```sh\n   ls"]
    closed = [
        "```python\nprint(1)\n```",
        "````md\n```python\nx\n```\n````",
        "```markdown\n# A\n```python\nx\n```\nloppu\n```",
        "```markdown\n# A\n```python\nx\n```\nloppu\n```\nSe oli esimerkki.",
        "Merkki ``` on aita.",
        "~~~\n```\n~~~",
    ]
    assert refuses(STEP, [*open_, *closed]) == open_


def test_stopping_in_a_sentence_is_found_in_prose_alone() -> None:
    cut = [PROSE + "Sen vuoksi munan keittäminen kestää", PROSE + "Sen vuoksi se on hidasta, vaikka,"]
    whole = [
        PROSE,
        PROSE + "Näin on!",
        PROSE + "(Lähde: oppikirja)",
        PROSE + "\n- munat\n- perunat",
        PROSE + "\n\nTerveisin\nAnna",
        PROSE + "Ohje on täällä: https://example.org/ohje",
        PROSE + "\n```\nx = 1\ny\n```",
        PROSE + "\n| a | b. Ja muuta |\n| c | d ja viimeinen rivi on taulukon rivi jossa on monta sanaa. Ja se",
        "Lyhyt vastaus. Ei pistettä lopussa",
    ]
    assert refuses(STEP, [*cut, *whole]) == cut


def test_only_the_chosen_answer_of_a_pair_is_judged() -> None:
    bad, good = "```\nx", "Hyvä."
    assert reasons(STEP, [pair(good, bad), pair(bad, good)]) == [None, "code fence left open"]


def test_few_real_answers_are_refused_and_many_cut_ones(real_data: Path) -> None:
    rows = real_rows(real_data)
    answers = [row.messages[-1]["content"] for row in rows]
    assert len(refuses(STEP, answers)) < 0.01 * len(answers)
    long = [answer for answer in answers if len(answer) > 500]
    cut = [answer[: 250 + (7919 * number) % (len(answer) - 310)] for number, answer in enumerate(long)]
    assert len(refuses(STEP, cut)) > 0.5 * len(cut)
