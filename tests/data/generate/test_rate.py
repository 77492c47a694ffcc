"""`rate`: what the judge is asked, what its answers count for, and which rows fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from posttrain.data.generate.prompts import prompt
from posttrain.data.generate.ratings import RATING_SCHEMA
from posttrain.data.generate.requests import Answer, Failed, Request, seed_of
from posttrain.data.generate.rollouts.rate import RETRY_TEMPERATURE, problems_of_rate, prompt_names, rate
from posttrain.data.generate.rollouts.together import together
from posttrain.data.generate.rows import Outcome
from posttrain.recipe.schema_generate import Rate, Sampling
from tests.data.generate.made import Said, Scripted, outcome, row, truncated, turns

SEED = 42
MESSAGES = turns("Capital of Finland?", "Turku.", "Sure?", "No, Helsinki.", system="Be brief.")


def options(**keys: Any) -> Rate:
    return Rate(rollout="rate", name="rated", **keys)


def rate_one(judge: Callable[[Request], Said], *, language: str = "en", **keys: Any) -> tuple[Outcome, Scripted]:
    asker = Scripted(judge=judge, structured=keys.pop("structured", False))
    return outcome(rate(options(**keys), SEED), row(MESSAGES, language=language), asker), asker


def scale_of(request: Request) -> str:
    assert request.messages is not None
    text = request.messages[0]["content"]
    return "fluency" if "grading the language" in text or "vastauksen kieltä" in text else "quality"


def in_turn(*said: Said) -> Callable[[Request], Said]:
    """Return a judge that answers its tries in this order."""
    return lambda request: said[request.sample]


def test_both_scales() -> None:
    scores = {"quality": "Fine.\n\nScore: 4/5", "fluency": "**Score: 4.5/5**"}
    found, asker = rate_one(lambda request: scores[scale_of(request)], scales=["quality", "fluency"])
    assert found == Outcome(messages=MESSAGES, meta={"quality": 4.0, "fluency": 4.5, "unrated": []})
    assert asker.most == 2  # asked at once
    assert {role for role, _ in asker.asked} == {"judge"}


def test_what_the_judge_is_asked() -> None:
    sampling = Sampling(temperature=0.0, max_tokens=300)
    _, asker = rate_one(in_turn("Score: 4/5"), sampling=sampling)
    text = prompt("quality", "en").render(conversation=MESSAGES[:-1], answer="No, Helsinki.", structured=False)
    assert asker.requests("judge") == [Request(messages=({"role": "user", "content": text},), sampling=sampling)]


def test_a_judge_that_keeps_to_a_schema_is_given_it() -> None:
    found, asker = rate_one(in_turn('{"reason": "good", "score": 4}'), structured=True)
    (request,) = asker.requests("judge")
    assert found.meta["quality"] == 4.0
    assert request.schema == RATING_SCHEMA
    assert request.messages is not None
    assert '"score"' in request.messages[0]["content"]


def test_a_judge_with_a_schema_is_read_strictly() -> None:
    found, _ = rate_one(lambda request: "Score: 4/5", structured=True)
    assert found.meta == {"quality": None, "unrated": ["quality"]}


def test_another_try_is_another_sample_and_not_greedy() -> None:
    found, asker = rate_one(in_turn("I would give 4", "Score: 7/5", "Score: 3/5"))
    assert found.meta == {"quality": 3.0, "unrated": []}
    first, second, third = asker.requests("judge")
    assert (first.sample, first.seed, first.sampling.temperature) == (0, None, 0.0)
    assert (second.sample, second.sampling.temperature) == (1, RETRY_TEMPERATURE)
    assert (third.sample, third.sampling.temperature) == (2, RETRY_TEMPERATURE)
    assert second.seed == seed_of(SEED, "row-1", "rate quality", 1) != third.seed
    assert first.messages == second.messages == third.messages
    assert len({request.key("judge", None) for request in (first, second, third)}) == 3


def test_a_sampled_try_is_repeated_as_it_was() -> None:
    sampling = Sampling(temperature=0.3)
    _, asker = rate_one(in_turn("?", "Score: 3/5"), sampling=sampling)
    first, second = asker.requests("judge")
    assert first.sampling == second.sampling == sampling
    assert first.seed == seed_of(SEED, "row-1", "rate quality", 0)
    assert second.seed == seed_of(SEED, "row-1", "rate quality", 1)


def test_scales_and_rows_have_seeds_of_their_own() -> None:
    asker = Scripted(judge=lambda request: "?")
    rollout = rate(options(scales=["quality", "fluency"], sampling=Sampling(temperature=1.0)), SEED)
    for id in ("a", "b"):
        outcome(rollout, row(MESSAGES, id=id), asker)
    seeds = [request.seed for request in asker.requests("judge")]
    assert len(set(seeds)) == len(seeds) == 2 * 2 * 3


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_what_cannot_be_read_is_recorded_as_unrated(retries: int) -> None:
    found, asker = rate_one(lambda request: "I would give 4", retries=retries)
    assert found == Outcome(messages=MESSAGES, meta={"quality": None, "unrated": ["quality"]})
    assert len(asker.asked) == retries + 1


@pytest.mark.parametrize("first", [truncated("Score: 5/5"), Answer(text="Score: 5/5", finish_reason="content_filter")])
def test_a_judge_cut_short_has_not_rated(first: Answer) -> None:
    found, asker = rate_one(in_turn(first, "Score: 2/5"))
    assert found.meta["quality"] == 2.0
    assert len(asker.asked) == 2


def test_one_scale_may_be_unrated() -> None:
    found, _ = rate_one(
        lambda request: "Score: 4/5" if scale_of(request) == "quality" else "?", scales=["quality", "fluency"]
    )
    assert found == Outcome(messages=MESSAGES, meta={"quality": 4.0, "fluency": None, "unrated": ["fluency"]})


@pytest.mark.parametrize(
    ("quality", "fluency", "minima", "failed"),
    [
        ("3", "5", {"min_quality": 4}, "quality below min_quality: 3"),
        ("3.5", "5", {"min_quality": 4}, "quality below min_quality: 3.5"),
        ("4", "5", {"min_quality": 4}, None),
        ("5", "3", {"min_quality": 4}, None),
        ("5", "3", {"min_fluency": 4}, "fluency below min_fluency: 3"),
        ("0", "0", {"min_quality": 1, "min_fluency": 1}, "quality below min_quality: 0"),
        ("N", "5", {"min_quality": 4}, "unrated: quality"),
        ("N", "5", {"min_quality": 0}, "unrated: quality"),
        ("N", "5", {"min_fluency": 4}, None),
        ("5", "N", {"min_quality": 4, "min_fluency": 4}, "unrated: fluency"),
    ],
)
def test_minima(quality: str, fluency: str, minima: dict[str, Any], failed: str | None) -> None:
    said = {"quality": f"Score: {quality}/5", "fluency": f"Score: {fluency}/5"}
    found, _ = rate_one(lambda request: said[scale_of(request)], scales=["quality", "fluency"], **minima)
    assert found.failed == failed
    assert found.messages == (MESSAGES if failed is None else None)
    assert found.meta["quality"] == (None if quality == "N" else float(quality))  # a tombstone keeps its ratings
    assert found.meta["fluency"] == (None if fluency == "N" else float(fluency))


@pytest.mark.parametrize(
    ("language", "meta"),
    [("en", {}), ("fi", {}), ("sv", {"prompt_language": "en"}), ("und", {"prompt_language": "en"})],
)
def test_the_judge_is_asked_in_the_language_of_the_row(language: str, meta: dict[str, str]) -> None:
    found, asker = rate_one(lambda request: "Pisteet: 4/5", language=language)
    assert found.meta == {"quality": 4.0, "unrated": [], **meta}
    (request,) = asker.requests("judge")
    assert request.messages is not None
    assert ("Tehtäväsi on" in request.messages[0]["content"]) == (language == "fi")


def test_a_request_that_fails_for_good_fails_the_row() -> None:
    def judge(request: Request) -> Said:
        return Failed("HTTP 400: too long") if scale_of(request) == "fluency" else "Score: 4/5"

    found, _ = rate_one(judge, scales=["quality", "fluency"], min_quality=5)
    assert (found.messages, found.failed) == (None, "HTTP 400: too long")
    assert found.meta["quality"] == 4.0


def test_a_row_without_an_answer_fails_unasked() -> None:
    found = outcome(rate(options(), SEED), row(turns("Hello?")), Scripted())
    assert found.failed == "no answer to rate: the last turn is not the assistant's"


def test_the_rows_are_not_changed() -> None:
    messages = [dict(message) for message in MESSAGES]
    outcome(rate(options(), SEED), row(messages), Scripted(judge=lambda request: "Score: 1/5"))
    assert messages == MESSAGES


def test_a_minimum_for_what_nobody_rates_is_a_problem() -> None:
    assert problems_of_rate(options(scales=["quality"], min_fluency=3)) == [
        "min_fluency: nobody rates the fluency; add fluency to scales"
    ]
    assert problems_of_rate(options(scales=["quality", "fluency"], min_fluency=3)) == []


def test_the_prompts_of_an_entry() -> None:
    assert prompt_names(options(scales=["fluency", "quality"])) == ["fluency", "quality"]


def test_together_waits_for_what_it_cancels() -> None:
    """An error that is no `Failed` comes out, and no call is left running behind it."""
    ended = []

    async def call(name: str) -> str:
        try:
            await asyncio.sleep(0.001 if name == "bad" else 600)
            raise RuntimeError(name)
        finally:
            ended.append(name)

    async def run() -> None:
        with pytest.raises(RuntimeError, match="bad"):
            await asyncio.wait_for(together([call("slow"), call("bad"), call("slow too")]), 5)
        assert sorted(ended) == ["bad", "slow", "slow too"]
        ended.clear()
        waiting = asyncio.create_task(together([call("slow"), call("slow too")]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert sorted(ended) == ["slow", "slow too"]

    asyncio.run(run())
