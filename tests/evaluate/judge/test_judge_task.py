"""Judging from answers to scores, by a server whose judge has known preferences."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from posttrain.errors import Interrupted
from posttrain.evaluate.judge.task import rescore_judged
from posttrain.evaluate.judge.units import Answers
from posttrain.evaluate.judge.verdicts import read_verdicts
from tests.data.generate.fake_server import FakeServer
from tests.evaluate.judge.judging import (
    JudgeServer,
    by_length,
    first,
    grade_or_compare,
    judged,
    longer,
    questions,
    shown,
    shuffled,
    texts,
    values,
)


def test_a_judge_that_prefers_the_first_answer_makes_every_pair_a_tie(tmp_path: Path) -> None:
    asked = questions(12)
    answers = {"instruct": texts(asked, lambda index: 40 + 9 * index, "I")}
    with JudgeServer(first) as server:
        found, counted = judged(server, tmp_path, "alpaca-eval-2", asked, answers)
    assert values(found, "instruct")["win_rate"] == 50.0
    assert values(found, "instruct")["lc_win_rate"] == pytest.approx(50.0, abs=1e-9)
    pair = found.comparisons["instruct"]
    assert (pair.wins, pair.ties, pair.losses, pair.unjudged, pair.wilson) == (0, 12, 0, 0, None)
    assert (found.verdicts, found.unjudged) == ({"instruct": 24}, {})
    assert counted["answers"] == server.judged == 24


def test_a_judge_that_prefers_length_is_found_out(tmp_path: Path) -> None:
    """Answers that are always several times as long win always, and about half the time once length is taken out."""
    asked = questions(60)
    draw = random.Random(3)
    lengths = [draw.randint(400, 600) for _ in asked]
    answers = {"long": texts(asked, lambda index: lengths[index], "L")}
    with JudgeServer(longer) as server:
        found, _ = judged(server, tmp_path, "alpaca-eval-2", asked, answers)
    assert values(found, "long")["win_rate"] == 100.0
    assert values(found, "long")["lc_win_rate"] == pytest.approx(50.0, abs=3.0)
    pair = found.comparisons["long"].as_json(seed=1)
    assert (pair["value"], pair["interval"]) == (100.0, [100.0, 100.0])
    assert pair["wilson"] == pytest.approx([93.98, 100.0], abs=0.01)  # of 60 out of 60


def test_both_orders_are_asked_and_every_verdict_is_kept(tmp_path: Path) -> None:
    asked = questions(2)
    answers = {"sft": texts(asked, lambda index: 30, "S"), "base": texts(asked, lambda index: 300, "B")}
    with JudgeServer(longer) as server:
        judged(server, tmp_path, "alpaca-eval-2", asked, answers)
    kept = read_verdicts(tmp_path / "out/task.jsonl")
    assert [(verdict.question, verdict.models) for verdict in kept] == [
        (question, models)
        for question in ("81", "82")
        for models in (("base", "reference"), ("reference", "base"), ("sft", "reference"), ("reference", "sft"))
    ]
    assert [verdict.choice for verdict in kept] == ["A", "B", "B", "A"] * 2
    assert all(verdict.said == ("Length tells.\n\nVerdict: " + str(verdict.choice),) for verdict in kept)
    assert kept[1].lengths == (len(asked[0].references[0] or ""), 300)
    prompts = [body["messages"][0]["content"] for body in server.bodies[1:]]
    assert sorted(shown(prompt) for prompt in prompts) == sorted(
        [
            pair
            for question in asked
            for answer in ("base", "sft")
            for one, other in [(answers[answer][question.id][0], question.references[0])]
            for pair in ([one, other], [other, one])
        ]
    )


def test_mt_bench_grades_each_turn_in_view_of_the_conversation(tmp_path: Path) -> None:
    asked = questions(3, turns=2)
    answers = {"sft": texts(asked, lambda index: 20, "S"), "instruct": texts(asked, lambda index: 50, "I")}
    with JudgeServer(grade_or_compare) as server:
        found, _ = judged(server, tmp_path, "mt-bench", asked, answers, against="sft")
    assert values(found, "sft") == {
        "score": 3.0,
        "score_turn_1": 3.0,
        "score_turn_2": 3.0,
        "score_maths": 3.0,
        "score_writing": 3.0,
    }
    assert values(found, "instruct")["score"] == 6.0
    assert values(found, "instruct")["win_rate"] == 100.0
    assert found.comparisons["instruct"].wins == 6
    assert found.comparisons["instruct"].wilson is not None
    assert found.verdicts == {"instruct": 18, "sft": 6}
    second = [body["messages"][0]["content"] for body in server.bodies if "turn 1?" in str(body["messages"])]
    assert len(second) == 12
    for prompt in second:
        assert prompt.index("turn 0?") < prompt.index("turn 1?")
        assert "Reference 0, turn 1" in prompt or "Question 0" not in prompt


def test_what_cannot_be_read_is_asked_again_and_then_counted(tmp_path: Path) -> None:
    asked = questions(4)
    answers = {"instruct": texts(asked, lambda index: 30 + 20 * index, "I")}

    def unclear(prompt: str) -> str:
        if "Question 1" in prompt:
            return "I would say 7 out of 10."
        if "Question 2" in prompt and server.asked[prompt] < 3:
            return "Hm. Score: 7"
        return by_length(prompt)

    with JudgeServer(unclear) as server:
        found, _ = judged(server, tmp_path, "mt-bench", asked, answers)
    kept = {verdict.question: verdict for verdict in read_verdicts(tmp_path / "out/task.jsonl")}
    assert {name: verdict.score for name, verdict in kept.items()} == {"81": 4.0, "82": None, "83": 8.0, "84": 10.0}
    assert [len(verdict.said) for verdict in kept.values()] == [1, 3, 3, 1]
    assert kept["82"].said == ("I would say 7 out of 10.",) * 3
    assert found.unjudged == {"instruct": {"unreadable": 1}}
    assert found.verdicts == {"instruct": 4}
    assert values(found, "instruct")["score"] == pytest.approx((4 + 8 + 10) / 3)
    again = [body for body in server.bodies if "Question 1" in str(body["messages"])]
    assert [body["temperature"] for body in again] == [0.0, 0.7, 0.7]
    assert again[0].get("seed") is None
    assert len({body.get("seed") for body in again}) == 3


def test_a_request_that_fails_leaves_a_pair_unjudged(tmp_path: Path) -> None:
    asked = questions(2)
    answers: dict[str, Answers] = {"instruct": {"81": ["fine"], "82": [None]}}
    with FakeServer(schema="ignore") as server:
        found, _ = judged(server, tmp_path, "alpaca-eval-2", asked, answers)
    assert found.measured == {"instruct": []}, "nothing measured is no zero"
    assert found.unjudged == {"instruct": {"no answer": 2, "unreadable": 2}}
    pair = found.comparisons["instruct"].as_json(seed=1)
    assert (pair["value"], pair["interval"], pair["wilson"], pair["unjudged"]) == (None, None, None, 2)
    kept = read_verdicts(tmp_path / "out/task.jsonl")
    assert kept[2].unjudged == "no answer: of instruct"
    assert (kept[2].said, kept[2].prompt_sha256) == ((), None)


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    asked = questions(6)
    answers = {"instruct": texts(asked, lambda index: 30 + 7 * index, "I")}
    with JudgeServer(longer) as server:
        before, _ = judged(server, tmp_path, "alpaca-eval-2", asked, answers)
        assert server.judged == 12
        again, counted = judged(server, tmp_path, "alpaca-eval-2", asked, answers, out="again")
        assert server.judged == 12
        answers["sft"] = texts(asked, lambda index: 50, "S")
        judged(server, tmp_path, "alpaca-eval-2", asked, answers, out="more")
        assert server.judged == 24
    assert (counted["answers"], counted["from_store"]) == (0, 12)
    assert (tmp_path / "again/task.jsonl").read_bytes() == (tmp_path / "out/task.jsonl").read_bytes()
    assert values(again, "instruct") == values(before, "instruct")


def test_a_run_that_is_stopped_goes_on_from_there(tmp_path: Path) -> None:
    asked = questions(40)
    answers = {"instruct": texts(asked, lambda index: 30 + 7 * index, "I")}

    def stopping(prompt: str) -> str:
        if server.judged == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return longer(prompt)

    with JudgeServer(stopping, delay=0.002) as server:
        with pytest.raises(Interrupted, match=r"eval: task: stopped by SIGTERM after \d+ verdicts"):
            judged(server, tmp_path, "alpaca-eval-2", asked, answers)
        assert not (tmp_path / "out").exists()
        assert server.judged < 80
        server.rule = longer
        found, _ = judged(server, tmp_path, "alpaca-eval-2", asked, answers)
        assert server.judged == 80
        assert max(server.answered.values()) <= 2, "only the judge's trial question comes twice"
    with JudgeServer(longer) as server:
        whole, _ = judged(server, tmp_path / "whole", "alpaca-eval-2", asked, answers)
    assert values(found, "instruct") == values(whole, "instruct")
    assert (tmp_path / "whole/out/task.jsonl").read_bytes() == (tmp_path / "out/task.jsonl").read_bytes()


def test_the_order_of_answers_makes_no_difference(tmp_path: Path) -> None:
    asked = questions(11, turns=2)
    draw = random.Random(5)
    answers = {name: texts(asked, lambda index: 20 + draw.randint(0, 80), name) for name in ("sft", "instruct", "base")}
    found = []
    for seed in range(2):
        turned = 1 - 2 * seed
        mixed = {name: shuffled(answers[name], seed) for name in list(answers)[::turned]}
        order = asked[::turned]
        with JudgeServer(grade_or_compare, spread=0.01) as server:
            one, _ = judged(server, tmp_path / str(seed), "mt-bench", order, mixed, against="base")
        found.append(one)
    kept = [(tmp_path / str(seed) / "out/task.jsonl").read_bytes() for seed in range(2)]
    assert kept[0] == kept[1]
    for model in answers:
        pairs = zip(found[0].measured[model], found[1].measured[model], strict=True)
        assert all((a.value, a.interval(3, 200)) == (b.value, b.interval(3, 200)) for a, b in pairs)
    assert found[0].measured["instruct"][0].less(found[1].measured["base"][0], 3, 100).value == pytest.approx(
        values(found[0], "instruct")["score"] - values(found[0], "base")["score"]
    )


@pytest.mark.parametrize("benchmark", ["mt-bench", "alpaca-eval-2"])
def test_scores_follow_from_the_file_alone(tmp_path: Path, benchmark: str) -> None:
    asked = questions(9)
    answers = {"sft": texts(asked, lambda index: 90 - index, "S"), "base": texts(asked, lambda index: 70, "B")}
    against = "base" if benchmark == "mt-bench" else None
    with JudgeServer(grade_or_compare) as server:
        found, _ = judged(server, tmp_path, benchmark, asked, answers, against=against)
    again = rescore_judged("task", benchmark, tmp_path / "out", against)  # type: ignore[arg-type]
    assert {model: values(again, model) for model in answers} == {model: values(found, model) for model in answers}
    assert again.verdicts == found.verdicts
    lines = (tmp_path / "out/task.jsonl").read_text().splitlines()
    record = json.loads(lines[0])
    record.update({"score": 1.0} if record["kind"] == "grade" else {"choice": "tie"})
    (tmp_path / "out/task.jsonl").write_text("\n".join([json.dumps(record), *lines[1:]]))
    changed = rescore_judged("task", benchmark, tmp_path / "out", against)  # type: ignore[arg-type]
    assert [values(changed, model) for model in answers] != [values(found, model) for model in answers]
