"""All entries of `generate` in one process: what is asked, what is not, and which section a message names."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from posttrain.data.generate import reward
from posttrain.data.generate.build import Models, build, entry_problems
from posttrain.data.generate.endpoint import Endpoint
from posttrain.data.generate.engines import needed
from posttrain.data.rows import Message
from posttrain.errors import Interrupted, UserError
from posttrain.recipe.schema_generate import (
    MagpieRollout,
    Rate,
    Respond,
    RewardModel,
    Rollout,
    Sampling,
    Teacher,
    Translate,
)
from tests.data.conversions import messages
from tests.data.generate.fake_server import FakeServer
from tests.data.generate.scripted import files


def entries_of(folder: Path) -> list[Rollout]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"question": f"Question {n}?"}) + "\n" for n in range(20)))
    return [
        Respond(rollout="respond", name="answers", source={"source": "generic", "path": str(path)}, max_rows=12),
        Rate(rollout="rate", name="rated", rows_from="answers", max_rows=9),
    ]


@pytest.fixture
def nobody() -> str:
    """Return the address of a server that does not run."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def test_what_is_finished_asks_nothing_not_even_whether_the_server_is_there(tmp_path: Path, nobody: str) -> None:
    entries, out = entries_of(tmp_path), tmp_path / "out"
    with FakeServer() as server:
        models = Models(Teacher(model="m", base_url=server.url))
        first = build(entries, models, 1, out, tmp_path / "answers")
    assert {name: (each.summary.rows, each.summary.failed) for name, each in first.items()} == {
        "answers": (12, 0),
        "rated": (9, 0),
    }
    assert first["answers"].asked["answers"] == 12
    before = files(out / "answers"), files(out / "rated")
    again = build(entries, Models(Teacher(model="m", base_url=nobody)), 1, out, tmp_path / "answers")
    assert {name: each.summary for name, each in again.items()} == {name: each.summary for name, each in first.items()}
    assert {each.asked["requests"] for each in again.values()} == {0}
    assert (files(out / "answers"), files(out / "rated")) == before


def test_a_key_is_asked_for_only_where_the_server_is(
    tmp_path: Path, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries, out, answers = entries_of(tmp_path), tmp_path / "out", tmp_path / "answers"
    monkeypatch.delenv("A_KEY", raising=False)
    paid = Teacher(model="m", base_url=nobody, api_key_env="A_KEY")
    with FakeServer() as server:
        free = Teacher(model="m", base_url=server.url)
        build(entries[:1], Models(free, judge=paid), 1, out, answers)  # nothing for the judge to do
        with pytest.raises(UserError, match="A_KEY is not set"):
            build(entries, Models(free, judge=paid), 1, out, answers)
        made = build(entries, Models(paid, judge=free), 1, out, answers)  # what the teacher has to do is done
        assert made["rated"].asked["answers"] > 0
    made = build(entries, Models(paid, judge=paid), 1, out, answers)
    assert {each.asked["requests"] for each in made.values()} == {0}


def test_models_that_no_entry_asks_are_not_needed() -> None:
    teacher, judge, scorer = Teacher(model="t"), Teacher(model="j"), RewardModel(model="r")
    every = Models(teacher, judge, scorer)
    first, rated = (Respond(rollout="respond", name="a"), Rate(rollout="rate", name="b", rows_from="a"))
    both = Respond(rollout="respond", name="c", n=2, best_of="both")
    by_judge = Respond(rollout="respond", name="c", n=2, best_of="judge")
    by_reward = Respond(rollout="respond", name="c", n=2, best_of="reward")
    magpie, tagged = (MagpieRollout(rollout="magpie", name="d", rows=1, tag=tag) for tag in (False, True))
    assert needed([first], every) == needed([magpie], every) == Models(teacher)
    assert needed([rated], every) == Models(None, judge)
    assert needed([first, rated], every) == needed([tagged], every) == needed([by_judge], every)
    assert needed([tagged], every) == Models(teacher, judge)
    assert needed([by_reward], every) == Models(teacher, None, scorer)
    assert needed([both], every) == needed([by_reward, rated], every) == every
    for alone in (Models(teacher), Models(None, judge)):
        assert needed([first], alone) == needed([rated], alone) == alone


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_seen_while_the_judge_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    given_up = []

    async def probe(self: Endpoint) -> bool:
        os.kill(os.getpid(), number)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            given_up.append(self.address)
            raise
        return True

    monkeypatch.setattr(Endpoint, "probe", probe)
    entries, out = entries_of(tmp_path), tmp_path / "out"
    with pytest.raises(Interrupted, match=f"judge: stopped by {number.name} before its server answered") as error:
        build(entries, Models(Teacher(model="m", base_url="http://judge/v1")), 1, out, tmp_path / "answers")
    assert error.value.signal == number
    assert given_up == ["http://judge/v1"]
    assert not list(out.iterdir())


def test_scores_are_had_once_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Length:
        """A reward model that likes long answers."""

        def __init__(self, section: RewardModel) -> None: ...

        async def score(self, messages: Sequence[Message]) -> float:
            scored.append(messages[-1]["content"])
            return len(messages[-1]["content"]) / 3

        async def close(self) -> None: ...

    scored: list[str] = []
    monkeypatch.setattr(reward, "Reward", Length)
    (given, _), answers = entries_of(tmp_path), tmp_path / "answers"
    entry = Respond(rollout="respond", name="best", source=given.source, max_rows=6, n=3, best_of="reward")
    with FakeServer() as server:
        teacher = Teacher(model="m", base_url=server.url)
        build([entry], Models(teacher, reward=RewardModel(model="r")), 1, tmp_path / "one", answers)
        assert len(scored) == 18
        build([entry], Models(teacher, reward=RewardModel(model="r")), 1, tmp_path / "two", answers)
        assert len(scored) == 18
        assert files(tmp_path / "one/best") == files(tmp_path / "two/best")
        other = RewardModel(model="r", revision="v2")
        build([entry], Models(teacher, reward=other), 1, tmp_path / "three", answers)
        assert len(scored) == 36


def test_a_judge_without_a_teacher_is_the_one_that_messages_name(tmp_path: Path, nobody: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": messages("Q", "A")}) + "\n")
    entry = Rate(rollout="rate", name="rated", source={"source": "generic", "path": str(path)})
    judge = Teacher(model="m", base_url=nobody)
    with pytest.raises(UserError) as error:
        build([entry], Models(None, judge), 1, tmp_path / "out", tmp_path / "answers")
    (problem,) = error.value.problems
    assert problem.startswith(f"judge: no connection to {nobody} ")
    assert "correct judge.base_url" in problem


def test_problems_of_all_entries_are_told_together_before_anything_is_made(tmp_path: Path) -> None:
    greedy = Sampling(temperature=0.0)
    source = {"source": "generic", "path": "x", "max_rows": 3}
    entries: list[Rollout] = [
        Respond(rollout="respond", name="a", source=source, n=2, sampling=greedy),
        Rate(rollout="rate", name="b", rows_from="a", min_fluency=2),
        Translate(rollout="translate", name="c", rows_from="a", to="fi", min_language_score=0),
        MagpieRollout(rollout="magpie", name="d", rows=3, instruction=greedy),
    ]
    assert [[problem.partition(":")[0] for problem in entry_problems(entry)] for entry in entries] == [
        ["generate.a.source.max_rows", "generate.a.n"],
        ["generate.b.min_fluency"],
        [],
        ["generate.d.instruction.temperature"],
    ]
    with pytest.raises(UserError) as error:
        build(entries, Models(Teacher(model="m")), 1, tmp_path / "out", tmp_path / "answers")
    assert error.value.problems == [problem for entry in entries for problem in entry_problems(entry)]
    assert not (tmp_path / "out").exists()
