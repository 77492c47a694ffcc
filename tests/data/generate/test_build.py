"""All entries of `generate` in one process: what is asked, what is not, and which section a message names."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from posttrain.data.generate.build import Models, build, entry_problems
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import MagpieRollout, Rate, Respond, Rollout, Sampling, Teacher, Translate
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
