"""Every row once, in order, with the same bytes whatever happens."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.generate.parts import part_files, read_rows
from posttrain.data.generate.progress import Status
from posttrain.data.generate.requests import Asker
from posttrain.data.generate.rows import InputRow, Outcome
from posttrain.data.generate.run import RolloutError, run_rows
from posttrain.data.generate.stop import Stop
from posttrain.errors import Interrupted, UserError
from tests.data.generate.scripted import Scripted, at_random, files, outcome, respond, rows, twice


def run(folder: Path, asker: Asker, count: int = 100, **keys: Any) -> Any:
    given = {"rows": rows(count), "rollout": respond, "concurrency": 8, "part_rows": 16, **keys}
    return asyncio.run(run_rows(given.pop("rows"), given.pop("rollout"), asker, folder, **given))


def test_each_row_comes_out_once_and_in_order(tmp_path: Path) -> None:
    asker = Scripted(at_random(1, 0.02))
    summary = run(tmp_path, asker)
    written = list(read_rows(tmp_path))
    assert [row["number"] for row in written] == list(range(100))
    assert [row["id"] for row in written] == [row.id for row in rows(100)]
    assert sorted(map(int, asker.asked)) == list(range(100))
    assert [len(list(part)) for _, part in itertools.groupby(range(100), lambda number: number // 16)][-1] == 4
    assert len(part_files(tmp_path)) == summary.parts == 7
    for row in written:
        number = row["number"]
        assert row["input"] == [{"role": "user", "content": str(number)}]
        if row["failed"] is None:
            assert row["messages"] == [*row["input"], {"role": "assistant", "content": f"answer {number}"}]
            assert row["meta"] == f'{{"generated":{{"finish_reason":"stop"}},"row":{number}}}'


def test_what_fails_stays_as_a_tombstone_and_is_counted_by_reason(tmp_path: Path) -> None:
    summary = run(tmp_path, Scripted())
    failed = {row["number"]: row["failed"] for row in read_rows(tmp_path) if row["messages"] is None}
    sevens = set(range(0, 100, 7))
    elevens = set(range(0, 100, 11)) - sevens
    assert set(failed) == sevens | elevens
    assert failed[14] == "no answer: time-out after 14"
    assert failed[11] == "refused"
    assert summary.reasons == {"no answer": len(sevens), "refused": len(elevens)}
    assert (summary.rows, summary.failed) == (100, len(failed))
    assert summary.written == 100 - len(failed)


def test_a_row_that_failed_before_is_not_asked_about(tmp_path: Path) -> None:
    given = [*rows(3)]
    given[1] = InputRow(number=1, id="b", messages=[], language="en", failed="no answer: 503")
    asker = Scripted()
    summary = run(tmp_path, asker, rows=iter(given))
    assert asker.asked == ["0", "2"]
    assert [row["failed"] for row in read_rows(tmp_path)][1] == "no answer: 503"
    assert summary.reasons["no answer"] == 2


def test_an_outcome_can_fail_a_row_and_keep_what_was_found_out(tmp_path: Path) -> None:
    async def rated(row: InputRow, asker: Asker) -> Outcome:
        return Outcome(failed="quality below min_quality: 2", meta={"quality": 2})

    summary = run(tmp_path, Scripted(), 1, rollout=rated)
    (row,) = read_rows(tmp_path)
    assert row["meta"] == '{"generated":{"quality":2},"row":0}'
    assert row["failed"] == "quality below min_quality: 2"
    assert summary.reasons == {"quality below min_quality": 1}


def test_half_a_surrogate_pair_fails_its_row_only(tmp_path: Path) -> None:
    async def odd(row: InputRow, asker: Asker) -> Outcome:
        return outcome(row, "\ud83d" if row.number == 1 else "fine")

    run(tmp_path, Scripted(), 3, rollout=odd)
    assert [row["failed"] for row in read_rows(tmp_path)] == [None, "content is not valid Unicode: message 2", None]


@pytest.mark.parametrize(("concurrency", "seed"), [(1, 0), (7, 1), (64, 2), (64, 3)])
def test_bytes_do_not_depend_on_concurrency_or_the_order_of_answers(
    tmp_path: Path, concurrency: int, seed: int
) -> None:
    run(tmp_path / "one", Scripted(), 150, concurrency=1)
    run(tmp_path / "other", Scripted(at_random(seed, 0.01 if seed else 0.0)), 150, concurrency=concurrency)
    assert files(tmp_path / "one") == files(tmp_path / "other")


def test_no_more_rows_are_at_work_than_asked_for(tmp_path: Path) -> None:
    asker = Scripted(at_random(4, 0.01))
    run(tmp_path, asker, concurrency=13)
    assert asker.most_in_flight == 13


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    first = run(tmp_path, Scripted())
    before = files(tmp_path)
    asker = Scripted()

    unread = (pytest.fail("nothing is to be read") for _ in range(1))
    assert run(tmp_path, asker, rows=unread) == first
    assert asker.asked == []
    assert files(tmp_path) == before


def test_no_rows_at_all_are_a_finished_run(tmp_path: Path) -> None:
    summary = run(tmp_path, Scripted(), 0)
    assert (summary.rows, summary.parts) == (0, 0)
    assert list(files(tmp_path)) == ["done.json"]


def test_a_stalled_row_holds_back_those_after_it(tmp_path: Path) -> None:
    """While the first row waits, a bounded number of others is read, however fast they are."""
    taken = 0
    window = 50

    def counted() -> Iterator[InputRow]:
        nonlocal taken
        for row in rows(1000):
            taken += 1
            yield row

    async def all_of_it() -> None:
        gate = asyncio.Event()

        async def stalls(row: InputRow, asker: Asker) -> Outcome:
            if row.number == 0:
                await gate.wait()
            return await respond(row, asker)

        running = asyncio.create_task(
            run_rows(counted(), stalls, Scripted(), tmp_path, concurrency=8, part_rows=16, window=window)
        )
        await asyncio.sleep(0.3)
        assert taken == window
        assert part_files(tmp_path) == []
        gate.set()
        assert (await running).rows == 1000

    asyncio.run(all_of_it())
    assert taken == 1000


def test_an_error_of_the_rollout_ends_the_run_and_keeps_what_is_finished(tmp_path: Path) -> None:
    async def breaks(row: InputRow, asker: Asker) -> Outcome:
        if row.number == 70:
            raise KeyError("finish")
        return await respond(row, asker)

    asker = Scripted(at_random(5, 0.01))
    with pytest.raises(RolloutError, match=r"^row 70 \([0-9a-f]{32}\): KeyError: 'finish'; \d+ rows are finished$"):
        run(tmp_path, asker, rollout=breaks)
    assert asker.stopped
    assert asker.in_flight == 0
    assert len(part_files(tmp_path)) == 4  # 64 of the 70 rows before it
    assert not (tmp_path / "done.json").exists()
    asker = Scripted()
    run(tmp_path, asker)
    assert min(map(int, asker.asked)) == 64
    run(tmp_path.with_name("whole"), Scripted())
    assert files(tmp_path) == files(tmp_path.with_name("whole"))


def test_an_error_ends_workers_that_wait_for_room(tmp_path: Path) -> None:
    async def breaks(row: InputRow, asker: Asker) -> Outcome:
        if row.number == 0:
            await asyncio.sleep(0.1)
            raise KeyError("finish")
        return await respond(row, asker)

    async def broken() -> None:
        running = run_rows(rows(1000), breaks, Scripted(), tmp_path, concurrency=8, window=8)
        await asyncio.wait_for(running, 5)

    with pytest.raises(RolloutError, match=r"^row 0 .*; 0 rows are finished$"):
        asyncio.run(broken())


def test_what_a_user_can_correct_is_said_once(tmp_path: Path) -> None:
    async def refused(row: InputRow, asker: Asker) -> Outcome:
        await asyncio.sleep(0.01)
        raise UserError("teacher: the key is wrong")

    with pytest.raises(UserError, match=r"^teacher: the key is wrong$") as caught:
        run(tmp_path, Scripted(), rollout=refused)
    assert caught.value.problems == ["teacher: the key is wrong"]


def test_an_error_of_the_input_ends_the_run(tmp_path: Path) -> None:
    def damaged() -> Iterator[InputRow]:
        yield from rows(40)
        raise UserError("rows.jsonl: is not a whole file")

    with pytest.raises(UserError, match="not a whole file"):
        run(tmp_path, Scripted(at_random(6, 0.005)), rows=damaged())
    assert len(part_files(tmp_path)) == 2
    assert not (tmp_path / "done.json").exists()


def test_an_outcome_without_messages_or_a_reason_is_an_error(tmp_path: Path) -> None:
    async def nothing(row: InputRow, asker: Asker) -> Outcome:
        return Outcome()

    with pytest.raises(RolloutError, match="neither messages nor a reason"):
        run(tmp_path, Scripted(), rollout=nothing)


@pytest.mark.parametrize("rollout", [respond, twice])
@pytest.mark.parametrize("moment", [0.0, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("part_rows", [1, 16])
def test_a_stop_drains_and_the_next_run_goes_on(tmp_path: Path, rollout: Any, moment: float, part_rows: int) -> None:
    asker = Scripted(at_random(7, 0.02))

    async def stopped() -> None:
        stop = Stop()
        asyncio.get_running_loop().call_later(moment, stop.request, 15)
        await run_rows(rows(150), rollout, asker, tmp_path / "cut", concurrency=8, part_rows=part_rows, stop=stop)

    with pytest.raises(Interrupted, match=r"^cut: stopped by SIGTERM after \d+ rows; the same command") as caught:
        asyncio.run(stopped())
    assert caught.value.signal == 15
    assert asker.in_flight == 0
    assert asker.stopped
    kept = len(part_files(tmp_path / "cut")) * part_rows
    assert all(name.startswith("part-") for name in files(tmp_path / "cut"))
    second = Scripted()
    run(tmp_path / "cut", second, 150, rollout=rollout, part_rows=part_rows)
    assert all(int(question) >= kept for question in second.asked if question.isdigit())
    run(tmp_path / "whole", Scripted(), 150, rollout=rollout, part_rows=part_rows)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


@pytest.mark.parametrize(("rollout", "finished"), [(respond, 8), (twice, 0)])
def test_a_stop_reaches_workers_that_wait_for_room(tmp_path: Path, rollout: Any, finished: int) -> None:
    """Also where the row that holds them back is given up, because its second question is not sent any more."""

    async def stopped() -> None:
        stop = Stop()
        asyncio.get_running_loop().call_later(0.1, stop.request, 2)
        asker = Scripted(lambda question: 0.3 if question == "1" else 0.0)
        given = (dataclasses.replace(row, number=row.number - 1) for row in itertools.islice(rows(1000), 1, None))
        await run_rows(given, rollout, asker, tmp_path, concurrency=8, window=8, stop=stop)

    with pytest.raises(Interrupted, match=f"SIGINT after {finished} rows"):
        asyncio.run(asyncio.wait_for(stopped(), 5))


def test_a_stop_after_the_last_row_still_stops(tmp_path: Path) -> None:
    """The rows are finished, and the signal is not forgotten: what comes after them does not begin."""
    stop = Stop()

    def given() -> Iterator[InputRow]:
        yield from rows(10)
        stop.request(15)

    with pytest.raises(Interrupted):
        run(tmp_path, Scripted(), rows=given(), stop=stop)
    assert (tmp_path / "done.json").exists()


def test_parts_of_other_rows_are_not_gone_on_with(tmp_path: Path) -> None:
    asker = Scripted()
    run(tmp_path, asker)
    (tmp_path / "done.json").unlink()
    other = (row for row in itertools.islice(rows(101), 1, None))
    with pytest.raises(UserError, match="made from other rows"):
        run(tmp_path, asker, rows=other)
    with pytest.raises(UserError, match="made from other rows"):
        run(tmp_path, asker, 20)
    with pytest.raises(UserError, match="has not 16 rows, and more follow"):
        run(tmp_path, asker, 101)
    with pytest.raises(UserError, match="has not 10 rows, and more follow"):
        run(tmp_path, asker, part_rows=10)
    (tmp_path / "part-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"part-00002\.parquet is missing"):
        run(tmp_path, asker)


def test_a_run_killed_before_the_mark_needs_no_question(tmp_path: Path) -> None:
    run(tmp_path, Scripted())
    before = files(tmp_path)
    (tmp_path / "done.json").unlink()
    asker = Scripted()
    run(tmp_path, asker)
    assert asker.asked == []
    assert files(tmp_path) == before


def test_progress_is_told_where_the_run_is(tmp_path: Path) -> None:
    seen: list[tuple[Status, bool]] = []

    class Watch:
        def update(self, status: Status, *, last: bool = False) -> None:
            seen.append((status, last))

    run(tmp_path, Scripted(at_random(8, 0.2)), 40, concurrency=4, total=40, progress=Watch())
    assert len(seen) > 2
    done = [status.done for status, _ in seen]
    assert done == sorted(done)
    assert done[-1] == 40
    assert any(status.active == 4 for status, _ in seen)
    assert [last for _, last in seen] == [False] * (len(seen) - 1) + [True]
    assert seen[-1][0].failed == {"no answer": 6, "refused": 3}


def test_progress_is_told_even_if_no_answer_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Status] = []

    class Watch:
        def update(self, status: Status, *, last: bool = False) -> None:
            seen.append(status)

    monkeypatch.setattr("posttrain.data.generate.run._LOOK", 0.001)
    run(tmp_path, Scripted(), 3000, progress=Watch())
    assert len(seen) > 5
