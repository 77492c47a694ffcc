"""Chunks: what follows each other without a gap, and what has no items of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from posttrain.data.chunks import Chunk, Item, Lines, Unreadable, stretches


def lines(first: int, *texts: str) -> Lines:
    return Lines(first, len(texts), 1.0, "rows.jsonl", first + 1, [text.encode() for text in texts])


def record(number: int) -> str:
    return json.dumps({"n": number})


CHUNKS = [lines(0, record(0), record(1), "", record(3), "{bad"), lines(5, "[1]", record(6)), lines(7, record(7))]


def found(whole: bool) -> tuple[list[tuple[int, list[int]]], list[str]]:
    unreadable: list[Unreadable] = []
    runs = [(start, [item["n"] for item in items]) for start, items in stretches(CHUNKS, whole, unreadable.append)]
    return runs, [item.reason for item in unreadable]


def test_a_gap_and_the_end_of_a_chunk_end_a_stretch() -> None:
    runs, unreadable = found(whole=False)
    assert runs == [(0, [0, 1]), (3, [3]), (6, [6]), (7, [7])]
    assert unreadable == ["not JSON: line 5 of rows.jsonl", "not an object: line 6 of rows.jsonl"]


def test_a_source_that_is_whole_is_one_stretch() -> None:
    assert found(whole=True) == ([(0, [0, 1, 3, 6, 7])], found(whole=False)[1])


def test_records_are_parsed_as_they_are_taken() -> None:
    parsed: list[int] = []

    class Slow(Chunk):
        def items(self) -> Iterator[Item]:
            for number in range(5):
                parsed.append(number)
                yield {"n": number}

    ((_, items),) = [next(stretches([Slow(0, 5, 1.0)], False, lambda item: None))]
    assert [next(items)["n"] for _ in range(2)] == [0, 1]
    assert parsed == [0, 1]


def test_a_chunk_without_items_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Chunk(0, 1, 1.0)  # type: ignore[abstract]
