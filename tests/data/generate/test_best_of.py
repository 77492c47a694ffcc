"""`respond`: several answers to a turn, which of them can be used, and which is taken."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from posttrain.data.generate.requests import Answer, Failed, Request, seed_of
from posttrain.data.generate.rollouts.respond import problems_of_respond, prompt_names, respond
from posttrain.data.generate.rows import Outcome
from posttrain.data.rows import Message
from posttrain.recipe.schema_generate import Respond, Sampling
from tests.data.generate.made import Said, Scripted, last_user, outcome, row, truncated, turns

SEED = 42
GREEDY = Sampling(temperature=0.0)
TRUNCATED = "answer truncated: finish_reason length"


def options(**keys: Any) -> Respond:
    return Respond(rollout="respond", name="answers", **keys)


def echo(request: Request) -> str:
    return f"re {last_user(request)}"


def choose(
    said: Sequence[Said],
    best_of: Literal["first", "judge", "reward", "both"] = "first",
    *,
    ratings: Sequence[float | str | Exception] = (),
    rewards: Sequence[float] = (),
    **keys: Any,
) -> tuple[Outcome, Scripted]:
    """Draw the samples `said`, numbered `sample 0` and so on in the judge's and the reward model's eyes."""

    def judge(request: Request) -> Said:
        assert request.messages is not None
        found = ratings[_sample_in(request.messages[0]["content"])]
        return found if isinstance(found, Exception) else f"Score: {found}/5"

    def reward(messages: Sequence[Message]) -> float:
        return rewards[_sample_in(messages[-1]["content"])]

    asker = Scripted(lambda request: said[request.sample], judge, reward=reward)
    rollout = respond(options(n=len(said), best_of=best_of, **keys), SEED)
    return outcome(rollout, row(turns("Why?")), asker), asker


def _sample_in(text: str) -> int:
    return int(text.partition("sample ")[2][0])


def samples(count: int) -> list[str]:
    return [f"sample {number}" for number in range(count)]


def taken(found: Outcome) -> str:
    assert found.messages is not None, found.failed
    return found.messages[-1]["content"]


def test_samples_are_drawn_at_once_with_seeds_of_their_own() -> None:
    sampling = Sampling(temperature=0.8, top_p=0.95, max_tokens=100, stop=["###"])
    found, asker = choose(samples(4), sampling=sampling)
    assert asker.most == 4
    assert asker.requests() == [
        Request(
            messages=tuple(turns("Why?")),
            sampling=sampling,
            seed=seed_of(SEED, "row-1", "respond 0", sample),
            sample=sample,
        )
        for sample in range(4)
    ]
    assert (found.meta["prompt_tokens"], found.meta["completion_tokens"]) == (40, 8)


def test_a_greedy_answer_has_no_seed() -> None:
    _, asker = choose(samples(1), sampling=GREEDY)
    assert asker.requests()[0].seed is None


def test_the_name_of_the_entry_and_the_way_to_choose_do_not_change_what_is_asked() -> None:
    _, one = choose(samples(2))
    other = Scripted(lambda request: f"sample {request.sample}", lambda request: "Score: 3/5")
    outcome(respond(Respond(rollout="respond", name="other", n=2, best_of="judge"), SEED), row(turns("Why?")), other)
    assert one.requests() == other.requests()


def test_first_takes_the_first_whichever_comes_first() -> None:
    asker = Scripted(lambda request: f"sample {request.sample}", late=lambda request: 9 - request.sample)
    found = outcome(respond(options(n=5), SEED), row(turns("Why?")), asker)
    assert taken(found) == "sample 0"


@pytest.mark.parametrize(
    ("said", "meta"),
    [
        (truncated("sample 0"), {"answer truncated": 1}),
        ("", {"empty answer": 1}),
        (" \n\t", {"empty answer": 1}),
        ("\0", {"NUL in the content": 1}),
        ("\ud800", {"content is not valid Unicode": 1}),
        (Answer(text="sample 0", finish_reason="content_filter"), {"answer cut off": 1}),
        (Failed("HTTP 400: no"), {"HTTP 400": 1}),
    ],
)
def test_a_sample_that_cannot_be_used_is_left_out_and_counted(said: Said, meta: dict[str, int]) -> None:
    found, asker = choose([said, "sample 1"], "judge", ratings=[5, 1])
    assert taken(found) == "sample 1"
    assert (found.meta["sample"], found.meta["left_out"], found.meta["ratings"]) == (1, meta, {"1": 1.0})
    assert len(asker.requests("judge")) == 1


@pytest.mark.parametrize(
    ("said", "failed"),
    [
        ([truncated("a"), truncated("b")], TRUNCATED),
        (["", ""], "empty answer"),
        ([Failed("HTTP 500: a"), Failed("HTTP 400: b")], "HTTP 500: a"),
        (["", truncated("a"), Failed("HTTP 400: b")], "empty answer"),
    ],
)
def test_a_row_without_a_usable_sample_fails_as_the_first_did(said: list[Said], failed: str) -> None:
    found, asker = choose(said, "judge")
    assert (found.messages, found.failed) == (None, failed)
    assert sum(found.meta["left_out"].values()) == found.meta["n"] == len(said)
    assert "sample" not in found.meta
    assert not asker.requests("judge")


def test_truncated_answers_are_kept_where_asked_for() -> None:
    found, _ = choose([truncated("sample 0"), "sample 1"], keep_truncated=True)
    assert (taken(found), found.meta["finish_reason"]) == ("sample 0", "length")
    found, _ = choose([truncated(" ")], keep_truncated=True)
    assert found.failed == "empty answer"


@pytest.mark.parametrize(
    ("best_of", "ratings", "rewards", "best"),
    [
        ("judge", [3, 5, 4], [], 1),
        ("judge", [3, 4.5, 4.5], [], 1),
        ("judge", [4, 4, 4], [], 0),
        ("judge", ["N", 0, "N"], [], 1),
        ("reward", [], [-3.5, -1.25, -9.0], 1),
        ("reward", [], [0.1, 0.3, 0.3], 1),
        ("both", [5, 4, 3], [0.1, 0.2, 0.3], 0),  # each has mean rank 2
        ("both", [4, 5, 3], [0.2, 0.3, 0.1], 1),
        ("both", [4, 4, 3], [0.1, 0.2, 0.3], 1),  # ranks 1.5+3, 1.5+2, 3+1
        ("both", ["N", 1, 0], [0.3, 0.2, 0.1], 1),  # 3+1, 1+2, 2+3
        ("both", ["N", "N", 1], [0.2, 0.3, 0.1], 1),  # 2.5+2, 2.5+1, 1+3
    ],
)
def test_the_best_is_taken(
    best_of: Literal["judge", "reward", "both"], ratings: list[float | str], rewards: list[float], best: int
) -> None:
    found, asker = choose(samples(3), best_of, ratings=ratings, rewards=rewards)
    assert taken(found) == f"sample {best}"
    assert found.meta["sample"] == best
    read = {str(sample): None if rating == "N" else rating for sample, rating in enumerate(ratings)}
    assert found.meta.get("ratings", {}) == read
    assert found.meta.get("rewards", {}) == {str(sample): reward for sample, reward in enumerate(rewards)}
    assert len(asker.scored) == len(rewards)
    assert bool(asker.requests("judge")) == bool(ratings)


def test_both_takes_the_least_mean_of_ranks_of_many() -> None:
    draw = random.Random(1)
    for _ in range(50):
        ratings, rewards = [[draw.randint(0, 5) for _ in range(6)] for _ in range(2)]
        found, _ = choose(samples(6), "both", ratings=ratings, rewards=rewards)
        # The rank of a score among others, ties shared: one more than those above, and half of those beside it.
        sums = [
            sum(sum(b > a[at] for b in a) + sum(b == a[at] for b in a) / 2 for a in (ratings, rewards))
            for at in range(6)
        ]
        assert found.meta["sample"] == sums.index(min(sums))


@pytest.mark.parametrize("best_of", ["judge", "both"])
def test_a_row_whose_samples_are_all_unrated_fails(best_of: Literal["judge", "both"]) -> None:
    found, asker = choose(samples(2), best_of, ratings=["N", "N"], rewards=[1.0, 2.0])
    assert (found.messages, found.failed) == (None, "unrated")
    assert found.meta["ratings"] == {"0": None, "1": None}
    assert len(asker.requests("judge")) == 2 * 3  # each asked again twice


def test_a_sample_whose_score_fails_is_left_out() -> None:
    found, _ = choose(samples(2), "both", ratings=[Failed("HTTP 400: too long"), 1], rewards=[9.0, 1.0])
    assert taken(found) == "sample 1"
    assert found.meta["left_out"] == {"HTTP 400": 1}
    found, _ = choose(samples(2), "reward", rewards=[float("nan"), 1.0])
    assert (taken(found), found.meta["left_out"]) == ("sample 1", {"reward is not a number": 1})
    found, _ = choose([*samples(1), ""], "judge", ratings=[Failed("HTTP 400: too long")])
    assert found.failed == "HTTP 400: too long"


LONG = turns("a", "old a", "b", "old b", "c", "old c", system="Be kind.")


def test_judge_and_reward_model_see_the_whole_conversation() -> None:
    asker = Scripted(echo, lambda request: "Score: 3/5", reward=lambda messages: 1.0)
    outcome(respond(options(respond="all", n=2, best_of="both"), SEED), row(LONG), asker)
    assert asker.scored[-1] == turns("a", "re a", "b", "re b", "c", "re c", system="Be kind.")
    last = last_user(asker.requests("judge")[-1])
    assert "<answer>\nre c\n</answer>" in last
    assert "<assistant>\nre b\n</assistant>" in last
    assert "old" not in last


def test_the_judge_says_where_it_was_asked_in_another_language() -> None:
    asker = Scripted(echo, lambda request: "Score: 3/5")
    rollout = respond(options(n=2, best_of="judge"), SEED)
    assert outcome(rollout, row(turns("Varför?"), language="sv"), asker).meta["prompt_language"] == "en"
    assert "prompt_language" not in outcome(rollout, row(turns("Miksi?"), language="fi"), asker).meta
    assert "prompt_language" not in outcome(respond(options(), SEED), row(turns("Varför?"), language="sv"), asker).meta


@pytest.mark.parametrize("best_of", ["first", "judge", "reward", "both"])
def test_the_order_of_answers_does_not_matter(best_of: Literal["first", "judge", "reward", "both"]) -> None:
    draw = random.Random(0)
    said: list[Said] = [truncated("x"), "aaa", "bb", "", "cc"]
    outcomes = []
    for _ in range(10):
        asker = Scripted(
            lambda request: said[request.sample],
            lambda request: "Score: 3/5",
            reward=lambda messages: -len(messages[-1]["content"]),
            late=lambda request: draw.randint(0, 9),
        )
        outcomes.append(outcome(respond(options(n=5, best_of=best_of), SEED), row(turns("Why?")), asker))
    assert all(found == outcomes[0] for found in outcomes)
    assert outcomes[0].meta["left_out"] == {"answer truncated": 1, "empty answer": 1}


def test_problems_come_together() -> None:
    assert problems_of_respond(options(n=4, sampling=GREEDY, system=" ")) == [
        "n: 4 samples at temperature 0 are all the same; raise sampling.temperature or set n: 1",
        "system: is blank; leave it out to keep the system turns that the rows have",
    ]
    assert problems_of_respond(options(n=1, sampling=GREEDY, system="Be kind.")) == []


def test_the_prompts_of_an_entry() -> None:
    assert prompt_names(options(best_of="both")) == prompt_names(options(best_of="judge")) == ["quality"]
    assert prompt_names(options(best_of="reward")) == prompt_names(options()) == []
