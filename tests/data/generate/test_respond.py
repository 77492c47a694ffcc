"""`respond`: which turns are answered, and from what."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest

from posttrain.data.generate.requests import Request
from posttrain.data.generate.rollouts.respond import respond
from posttrain.data.generate.rows import Outcome
from posttrain.data.rows import Message
from posttrain.recipe.schema_generate import Respond
from tests.data.generate.made import Scripted, last_user, outcome, row, truncated, turns

SEED = 42
TRUNCATED = "answer truncated: finish_reason length"


def options(**keys: Any) -> Respond:
    return Respond(rollout="respond", name="answers", **keys)


def echo(request: Request) -> str:
    return f"re {last_user(request)}"


LONG = turns("a", "old a", "b", "old b", "c", "old c", system="Be kind.")


def test_last_answers_the_last_user_turn_anew() -> None:
    asker = Scripted(echo)
    found = outcome(respond(options(respond="last"), SEED), row(LONG), asker)
    assert found.messages == [*LONG[:-1], {"role": "assistant", "content": "re c"}]
    (request,) = asker.requests()
    assert request.messages == tuple(LONG[:-1])
    assert found.meta == {"n": 1, "sample": 0, "finish_reason": "stop", "prompt_tokens": 10, "completion_tokens": 2}


def test_last_answers_a_prompt_without_an_answer() -> None:
    found = outcome(respond(options(), SEED), row(turns("a", "old a", "b")), Scripted(echo))
    assert found.messages == turns("a", "old a", "b", "re b")


def test_all_answers_each_turn_and_each_sees_the_new_answers() -> None:
    asker = Scripted(echo)
    found = outcome(respond(options(respond="all"), SEED), row(LONG), asker)
    assert found.messages == turns("a", "re a", "b", "re b", "c", "re c", system="Be kind.")
    assert [request.messages for request in asker.requests()] == [
        tuple(turns("a", system="Be kind.")),
        tuple(turns("a", "re a", "b", system="Be kind.")),
        tuple(turns("a", "re a", "b", "re b", "c", system="Be kind.")),
    ]
    assert asker.most == 1
    one = {"n": 1, "sample": 0, "finish_reason": "stop", "prompt_tokens": 10, "completion_tokens": 2}
    assert found.meta == {**one, "prompt_tokens": 30, "completion_tokens": 6, "turns": [one, one, one]}
    assert len({request.seed for request in asker.requests()}) == 3


def test_all_and_last_are_the_same_for_one_turn() -> None:
    found = [
        outcome(respond(options(respond=mode, n=3), SEED), row(turns("a", "old")), Scripted(echo))
        for mode in ("last", "all", "keep")
    ]
    assert found[0] == found[1] == found[2]


def test_keep_leaves_rows_of_several_turns_alone() -> None:
    found = outcome(respond(options(respond="keep", system="New."), SEED), row(LONG), Scripted())
    assert found == Outcome(messages=LONG, meta={"kept": True})


def test_keep_answers_the_last_turn_of_a_row_that_has_no_answer() -> None:
    found = outcome(respond(options(respond="keep"), SEED), row(LONG[:-1]), Scripted(echo))
    assert found == outcome(respond(options(respond="last"), SEED), row(LONG), Scripted(echo))
    assert found.messages == [*LONG[:-1], {"role": "assistant", "content": "re c"}]


def test_every_mode_of_the_schema_is_covered() -> None:
    hints = get_type_hints(Respond)
    assert get_args(hints["respond"]) == ("last", "all", "keep")
    assert get_args(hints["best_of"]) == ("first", "judge", "reward", "both")


@pytest.mark.parametrize("before", [None, "Old."])
@pytest.mark.parametrize("given", [None, "New."])
def test_the_system_turn(before: str | None, given: str | None) -> None:
    asker = Scripted(echo)
    found = outcome(respond(options(system=given), SEED), row(turns("a", "b", "c", system=before)), asker)
    expected = turns("a", "b", "c", "re c", system=given or before)
    assert found.messages == expected
    assert asker.requests()[0].messages == tuple(expected[:-1])


@pytest.mark.parametrize(
    ("messages", "failed"),
    [
        ([], "no user turn"),
        ([{"role": "assistant", "content": "Hi"}], "no user turn"),
        ([*turns("a"), *turns("b")], "roles out of order: turn 2 is user, expected assistant"),
    ],
)
def test_rows_that_cannot_be_answered(messages: list[Message], failed: str) -> None:
    for mode in ("last", "all"):
        assert outcome(respond(options(respond=mode), SEED), row(messages), Scripted()).failed == failed


def test_all_stops_at_a_turn_that_fails() -> None:
    asker = Scripted(lambda request: truncated("...") if last_user(request) == "b" else echo(request))
    found = outcome(respond(options(respond="all"), SEED), row(LONG), asker)
    assert (found.messages, found.failed) == (None, TRUNCATED)
    assert [last_user(request) for request in asker.requests()] == ["a", "b"]
    assert (found.meta["prompt_tokens"], found.meta["completion_tokens"]) == (20, 4098)


def test_the_rows_are_not_changed() -> None:
    given = [dict(message) for message in LONG]
    outcome(respond(options(respond="all", system="New."), SEED), row(given), Scripted(echo))
    assert given == LONG
