"""Which judges can be asked, what they are told apart by, and what becomes of keys and of errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from posttrain.data.generate import progress
from posttrain.data.generate.progress import Status, following
from posttrain.errors import UserError
from posttrain.evaluate.judge.task import judge_task
from posttrain.recipe.schema_generate import Teacher
from tests.data.generate.fake_server import FakeServer
from tests.evaluate.judge.judging import JudgeServer, by_length, first, judged, questions, texts, values


@pytest.mark.parametrize("language", ["en", "fi"])
def test_the_stand_in_of_smoke_runs_is_understood(tmp_path: Path, language: str) -> None:
    asked = questions(6, turns=2)
    answers = {name: texts(asked, lambda index: 30, name) for name in ("sft", "instruct")}
    found, _ = judge_task(
        "task",
        "mt-bench",
        asked,
        answers,
        Teacher(engine="sample", model="x"),
        tmp_path,
        1,
        language=language,
        store=tmp_path / "answers",
        against="sft",
    )
    assert found.unjudged == {}
    assert values(found, "sft")["score"] == 8.0
    pair = found.comparisons["instruct"]
    assert pair.wins + pair.ties + pair.losses == 12


def test_judges_that_enforce_a_schema_are_asked_for_json(tmp_path: Path) -> None:
    class Structured(FakeServer):
        def _reply(self, body: dict[str, Any], prompt: str) -> dict[str, Any]:
            reply = super()._reply(body, prompt)
            if "capital" not in prompt:
                schema = body["response_format"]["json_schema"]["schema"]
                (key,) = schema["required"][1:]
                said = {"reason": "Verdict: B", key: schema["properties"][key]["enum"][-1]}
                reply["choices"][0]["message"]["content"] = json.dumps(said)
            return reply

    asked = questions(2)
    answers = {name: texts(asked, lambda index: 30, name) for name in ("sft", "instruct")}
    with Structured() as server:
        found, _ = judged(server, tmp_path, "mt-bench", asked, answers, against="sft")
    assert values(found, "instruct")["score"] == 10.0
    assert found.comparisons["instruct"].ties == 2
    assert found.unjudged == {}


def test_names_that_do_not_fit_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    asked = questions(2)
    answers = {"reference": texts(asked, lambda index: 30, "R")}
    with JudgeServer(first) as server:
        with pytest.raises(UserError, match="a model is called 'reference'"):
            judged(server, tmp_path, "alpaca-eval-2", asked, answers)
        with pytest.raises(UserError, match=r"no model called 'base' is measured .* one of reference"):
            judged(server, tmp_path, "mt-bench", asked, answers, against="base")
        with pytest.raises(ValueError, match="question 82: 1 answers are needed"):
            judged(server, tmp_path, "mt-bench", asked, {"sft": {"81": ["a"], "82": []}})
        assert not server.asked
    assert not (tmp_path / "answers").exists()


@pytest.mark.parametrize("section", ["judge", "teacher"])
def test_a_server_that_is_not_there_is_told_by_the_section_that_names_it(tmp_path: Path, section: Any) -> None:
    asked = questions(1)
    with pytest.raises(UserError, match=rf"^{section}: no connection to .* correct {section}\.base_url"):
        judge_task(
            "task",
            "mt-bench",
            asked,
            {"sft": texts(asked, lambda index: 30, "S")},
            Teacher(model="x", base_url="http://127.0.0.1:9/v1", max_attempts=1),
            tmp_path,
            1,
            language="en",
            store=tmp_path / "answers",
            section=section,
        )


def test_no_key_is_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    asked = questions(2)
    answers = {"sft": texts(asked, lambda index: 30, "S")}
    with JudgeServer(by_length, key="Bearer sk-very-secret") as server:
        judged(server, tmp_path, "mt-bench", asked, answers, api_key_env="JUDGE_KEY")
    assert server.authorizations == {"Bearer sk-very-secret"}
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Long enough" in written
    assert b"very-secret" not in written


def test_a_log_says_how_many_verdicts_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    with following("mt-bench-fi", shown=False, stage="eval", unit="verdicts") as shown:
        shown.update(Status(done=3, total=4, failed={"unreadable": 1}))
    said = capsys.readouterr().err
    assert said.startswith("eval  mt-bench-fi: 3 of 4 verdicts; failed verdicts unreadable (1)")
