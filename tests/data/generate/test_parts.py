"""Parts: their columns, what is written first under another name, and what rollouts add to a row's metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.files import find_files
from posttrain.data.generate.parts import (
    PartWriter,
    Refusals,
    RunSummary,
    finish,
    finished,
    part_files,
    read_rows,
    record_of,
    schema,
)
from posttrain.data.generate.rows import InputRow, Outcome
from posttrain.data.read import read_records
from posttrain.data.sources import SOURCES
from posttrain.errors import UserError

QUESTION = {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "Because."}


def row(number: int = 0, **keys: Any) -> InputRow:
    return InputRow(number=number, id=f"{number:032x}", **{"messages": [QUESTION], "language": "en", **keys})


def meta_of(given: InputRow, outcome: Outcome) -> Any:
    return json.loads(record_of(given, outcome)["meta"])


def write(folder: Path, count: int, part_rows: int = 4) -> None:
    folder.mkdir(exist_ok=True)
    writer = PartWriter(folder, part_rows)
    for number in range(count):
        writer.add(record_of(row(number), Outcome(messages=[QUESTION, ANSWER])))
    writer.close()
    finish(folder, RunSummary(rows=count, parts=writer.parts))


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"rows": 1, "lines": 2}', "\x00"])
def test_a_damaged_mark_of_the_end_is_said_with_its_file_and_the_ways_out(tmp_path: Path, damaged: str) -> None:
    write(tmp_path, 5)
    whole = (tmp_path / "done.json").read_text()
    (tmp_path / "done.json").write_text(damaged)
    with pytest.raises(UserError, match=r"done\.json: cannot be read .*delete it.* --force generate") as error:
        finished(tmp_path)
    assert str(tmp_path) in str(error.value)
    (tmp_path / "done.json").write_text(whole)
    assert finished(tmp_path) == RunSummary(rows=5, parts=2)


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (4, [4]), (9, [4, 4, 1])])
def test_rows_are_cut_into_parts_and_come_back(tmp_path: Path, count: int, sizes: list[int]) -> None:
    import pyarrow.parquet as pq

    write(tmp_path, count)
    assert [pq.read_metadata(path).num_rows for path in part_files(tmp_path)] == sizes
    assert all(pq.read_schema(path).equals(schema()) for path in part_files(tmp_path))
    assert list(read_rows(tmp_path)) == [
        record_of(row(number), Outcome(messages=[QUESTION, ANSWER])) for number in range(count)
    ]


def test_a_part_gets_its_name_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    def half(table: Any, path: Path, **keys: Any) -> None:
        path.write_bytes(b"PAR1 and not more")
        raise OSError(28, "No space left on device")

    writer = PartWriter(tmp_path, 1)
    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", half)
        with pytest.raises(OSError, match="No space left"):
            writer.add(record_of(row(), Outcome(messages=[QUESTION, ANSWER])))
    assert part_files(tmp_path) == []
    with pytest.raises(UserError, match="no file in this folder can be read"):
        find_files(SOURCES["generic"].options(source="generic", path=str(tmp_path)))


def test_an_unfinished_folder_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, 9)
    (tmp_path / "done.json").unlink()
    with pytest.raises(UserError, match="is not finished"):
        list(read_rows(tmp_path))


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    write(tmp_path, 9)
    (tmp_path / "part-00001.parquet").write_bytes(b"PAR1 and not more")
    with pytest.raises(UserError, match=r"part-00001\.parquet: cannot be read .* delete it and the parts after it"):
        list(read_rows(tmp_path))


def test_a_summary_comes_back(tmp_path: Path) -> None:
    assert finished(tmp_path) is None
    summary = RunSummary(rows=9, failed=2, parts=3, reasons={"empty answer": 2}, refused={"not JSON": 1})
    finish(tmp_path, summary)
    assert finished(tmp_path) == summary


def test_only_parts_are_data(tmp_path: Path) -> None:
    write(tmp_path, 9)
    with Refusals(tmp_path) as refused:
        refused.add("generic", "read", "not JSON: line 3", "{")
        refused.finish()
    options = SOURCES["generic"].options(source="generic", path=str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} >= {"done.json", "refused.parquet"}
    assert [file.name for file in find_files(options)] == [f"part-0000{number}.parquet" for number in range(3)]
    assert list(read_records(options)) == list(read_rows(tmp_path))


def test_refusals_are_kept_once_all_input_was_read(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    with Refusals(tmp_path) as cut_off:
        cut_off.add("generic", "convert", "no messages", {"id": 1})
    assert list(tmp_path.iterdir()) == []
    with Refusals(tmp_path) as refused:
        refused.add("generic", "convert", "no assistant turn", {"id": 1})
        refused.add("generic", "convert", "unknown role: 'x'", {"id": 2})
        refused.add("generic", "convert", "unknown role: 'y'", {"id": 3})
        refused.finish()
    assert refused.reasons == {"no assistant turn": 1, "unknown role": 2}
    assert pq.read_table(tmp_path / "refused.parquet")["record"].to_pylist() == ['{"id": 1}', '{"id": 2}', '{"id": 3}']
    assert [path.name for path in tmp_path.iterdir()] == ["refused.parquet"]
    with Refusals(tmp_path) as nothing:
        nothing.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["refused.parquet"]


def test_what_rollouts_add_joins_while_the_messages_stay() -> None:
    given = row(messages=[QUESTION, ANSWER], meta={"row": 3, "generated": {"category": "advice"}})
    rated = Outcome(messages=[QUESTION, ANSWER], meta={"quality": 4.0})
    assert meta_of(given, rated) == {"row": 3, "generated": {"category": "advice", "quality": 4.0}}


def test_a_rating_does_not_pass_to_another_answer() -> None:
    given = row(messages=[QUESTION, ANSWER], meta={"generated": {"quality": 1.0}})
    other = Outcome(messages=[QUESTION, {"role": "assistant", "content": "Since."}], meta={"finish_reason": "stop"})
    assert meta_of(given, other) == {"generated": {"before": {"quality": 1.0}, "finish_reason": "stop"}}


def test_a_column_of_the_source_called_generated_is_no_obstacle() -> None:
    assert meta_of(row(meta={"generated": True}), Outcome(failed="x")) == {"generated": True}
    assert meta_of(row(meta={"generated": True}), Outcome(failed="x", meta={"n": 1})) == {"generated": {"n": 1}}


def test_a_tombstone_keeps_its_input_and_a_reason_that_can_be_written(tmp_path: Path) -> None:
    record = record_of(row(license="MIT"), Outcome(messages=[QUESTION, ANSWER], failed="refused: \ud83d"))
    writer = PartWriter(tmp_path, 1)
    writer.add(record)
    finish(tmp_path, RunSummary(rows=1))
    (read,) = read_rows(tmp_path)
    assert (read["messages"], read["input"], read["license"]) == (None, [QUESTION], "MIT")
    assert read["failed"] == "refused: \\ud83d"


def test_the_language_of_an_outcome_is_taken() -> None:
    assert record_of(row(), Outcome(messages=[QUESTION, ANSWER], language="fi"))["language"] == "fi"
    assert record_of(row(), Outcome(messages=[QUESTION, ANSWER]))["language"] == "en"
