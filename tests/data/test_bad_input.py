"""Every way in which a source can be damaged, put through a whole build: rows are set aside, files are one error."""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from posttrain.data.build import build as build_all
from posttrain.data.rows import MAX_CHARS
from posttrain.errors import UserError
from posttrain.recipe.schema import Data
from posttrain.recipe.schema_data import Decontamination, EvalSet

build = partial(build_all, report=False)


def chat(number: int, **columns: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": f"What is {number}?"}, {"role": "assistant", "content": f"{number}."}]
    return {"messages": turns, **columns}


def with_answer(answer: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "A question"}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


def rejected(out: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    return list(pyarrow.parquet.read_table(out / "sft" / "rejected.parquet").to_pylist())


BAD_LINES: list[tuple[bytes, str]] = [
    (json.dumps(with_answer("x" * (10 << 20))).encode(), "content too long"),
    (json.dumps(with_answer("before\0after")).encode(), "NUL in the content"),
    (b'{"messages": [{"role": "user", "content": "a\0b"}]}', "not JSON"),  # JSON has no bare control characters
    (json.dumps(with_answer("half of a pair: \ud83d")).encode(), "content is not valid Unicode"),
    (json.dumps({"messages": 7}).encode(), "messages are not a list of objects"),
    (json.dumps({"messages": "a text"}).encode(), "messages are not a list of objects"),
    (json.dumps({"messages": None}).encode(), "missing column"),
    (json.dumps(with_answer({"text": "x"})).encode(), "content is not text"),
    (json.dumps(with_answer(["x"])).encode(), "content is not text"),
    (json.dumps(with_answer(None)).encode(), "content is not text"),
    (json.dumps(with_answer(" \n")).encode(), "empty content"),
    (json.dumps({"messages": chat(0)["messages"][::-1]}).encode(), "roles out of order"),
    (json.dumps({"messages": [*chat(0)["messages"], *chat(0)["messages"][1:]]}).encode(), "roles out of order"),
    (json.dumps({"messages": []}).encode(), "no messages"),
    ('{"messages": "päivää"}'.encode("latin-1"), "not UTF-8"),
    (b'{"messages": [', "not JSON"),
    (b"\0\0\0\0", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"[1, 2]", "not an object"),
]


@pytest.mark.parametrize("num_proc", [1, 2])
def test_each_bad_row_is_set_aside_with_its_reason_and_the_others_stay(tmp_path: Path, num_proc: int) -> None:
    path = tmp_path / "chats.jsonl"
    lines = [json.dumps(chat(number)).encode() for number in range(40)]
    for place, (line, _) in enumerate(BAD_LINES):
        lines.insert(2 * place, line)
    path.write_bytes(b"\n".join(lines))
    data = Data(sft=[{"source": "generic", "path": str(path), "shape": "messages"}], num_proc=num_proc)
    summary = build(data, 42, tmp_path / "out")
    found = rejected(tmp_path / "out")
    assert sorted(row["reason"] for row in found) == sorted(reason for _, reason in BAD_LINES)
    part = summary.sets["sft"]
    assert (part.train + part.validation, part.rejected) == (40, len(BAD_LINES))
    [longest] = [row["detail"] for row in found if row["reason"] == "content too long"]
    assert longest == f"the assistant turn has {10 << 20} characters, more than {MAX_CHARS}"


def test_a_column_of_another_type_in_row_70000_is_that_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    with path.open("w") as stream:
        for number in range(70_010):
            stream.write(json.dumps({"messages": 3} if number == 69_999 else chat(number)) + "\n")
    summary = build(Data(sft=[{"source": "generic", "path": str(path)}], num_proc=2), 42, tmp_path / "out")
    [only] = rejected(tmp_path / "out")
    assert (only["step"], only["reason"], json.loads(only["record"])) == (
        "convert", "messages are not a list of objects", {"messages": 3}
    )  # fmt: skip
    assert summary.sets["sft"].train + summary.sets["sft"].validation == 70_009


def test_rows_with_one_id_of_their_own_are_told_apart_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    rows = [chat(number, id="same") for number in range(40)] + [chat(3, id="other")]
    path.write_text("\n".join(map(json.dumps, rows)))
    summary = build(Data(sft=[{"source": "generic", "path": str(path)}]), 42, tmp_path / "out")
    assert summary.sets["sft"].train + summary.sets["sft"].validation == 40
    assert [row["reason"] for row in rejected(tmp_path / "out")] == ["duplicate"]


def test_evaluation_sets_are_looked_at_before_any_row(tmp_path: Path) -> None:
    rows, empty = tmp_path / "chats.jsonl", tmp_path / "evals.jsonl"
    rows.write_text(json.dumps(chat(1)))
    empty.write_text("")
    sets = [EvalSet(path=str(empty)), EvalSet(path=str(rows), column="question")]
    data = Data(sft=[{"source": "generic", "path": str(rows)}], decontaminate=Decontamination(against=sets))
    with pytest.raises(UserError) as caught:
        build(data, 42, tmp_path / "out")
    first, second = caught.value.problems
    assert first.startswith(f"data.decontaminate.against.0.path: {empty} holds no prompt")
    assert second.startswith("data.decontaminate.against.1.column: ")
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_use_are_told_together_and_nothing_is_written(tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps(chat(number)) + "\n" for number in range(9000)).encode())
    files = {
        "cut.jsonl.gz": whole[: len(whole) // 2],
        "no.jsonl.gz": b"plain text",
        "empty.jsonl": b"",
        "blank.jsonl": b"\n\n",
        "no.parquet": b"PAR1 and no more",
        "one.json": b'{"messages": 3',
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    data = Data(sft=[{"source": "generic", "path": str(tmp_path / name)} for name in files])
    with pytest.raises(UserError) as caught:
        build(data, 42, tmp_path / "out")
    assert len(caught.value.problems) == len(files)
    for number, (name, problem) in enumerate(zip(files, caught.value.problems, strict=True)):
        assert problem.startswith(f"data.sft.{number}.path: {tmp_path / name}: ")
    assert not (tmp_path / "out").exists()
