from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.rows import SftRow
from posttrain.data.sources import phrasings
from posttrain.data.sources.europarl import Europarl, prepare
from posttrain.data.split import tree_key
from posttrain.errors import UserError
from tests.data.conversions import convert, problems

ENGLISH = "The boat crosses the wide lake before the rain begins."
FINNISH = "Vene ylittää leveän järven ennen kuin sade alkaa."


def pair(english: Any = ENGLISH, finnish: Any = FINNISH) -> dict[str, Any]:
    return {"translation": {"en": english, "fi": finnish}}


def numbered(count: int) -> list[dict[str, Any]]:
    return [pair(f"{ENGLISH} Number {i}.", f"{FINNISH} Numero {i}.") for i in range(count)]


def meta(row: SftRow) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row.meta)
    return found


def directions(rows: list[SftRow]) -> list[str]:
    return [f"{meta(row)['from']}-{meta(row)['to']}" for row in rows]


def test_both_directions_of_a_pair_share_a_unit_and_a_tree() -> None:
    rows, _ = convert("europarl", "sft", [pair()], start=6)
    assert directions(rows) == ["en-fi", "fi-en"]
    assert [row.messages[-1]["content"] for row in rows] == [FINNISH, ENGLISH]
    assert [passage in row.messages[0]["content"] for row, passage in zip(rows, (ENGLISH, FINNISH), strict=True)]
    assert [row.units for row in rows] == [(6,), (6,)]
    assert {row.language for row in rows} == {"mul"}
    assert tree_key(rows[0]) == tree_key(rows[1]) != b""


def test_directions() -> None:
    records = numbered(200)
    for one in ("en-fi", "fi-en"):
        assert directions(convert("europarl", "sft", records, directions=one)[0]) == [one] * 200
    drawn, _ = convert("europarl", "sft", records, directions="alternate")
    assert len(drawn) == 200
    assert 70 <= Counter(directions(drawn))["en-fi"] <= 130
    both, _ = convert("europarl", "sft", records)
    assert {row.id for row in drawn} <= {row.id for row in both}


def test_every_phrasing_is_used_in_both_directions() -> None:
    rows, _ = convert("europarl", "sft", numbered(400))
    for direction in ("en-fi", "fi-en"):
        used = Counter(meta(row)["phrasing"] for row in rows if directions([row]) == [direction])
        assert len(used) == phrasings.COUNT
        assert min(used.values()) >= 400 / phrasings.COUNT / 3
    drawn: dict[str, set[str]] = {}
    for row in rows:
        drawn.setdefault(meta(row)["tree"], set()).add(meta(row)["phrasing"])
    same = sum(len(names) == 1 for names in drawn.values())
    assert same <= 3 * 400 / phrasings.COUNT  # the two directions of a pair draw apart


def test_phrasings_depend_on_the_pair_and_the_seed_alone() -> None:
    records = numbered(60)
    rows = {row.id for row in convert("europarl", "sft", records)[0]}
    again = {row.id for place in (59, 7, 30) for row in convert("europarl", "sft", [records[place]], start=place)[0]}
    assert again < rows
    assert rows == {row.id for row in convert("europarl", "sft", records[::-1], pair="fi-en")[0]}
    assert rows != {row.id for row in convert("europarl", "sft", records, phrasing_seed=7)[0]}


@pytest.mark.parametrize("choice", range(phrasings.COUNT))
def test_a_phrasing_names_the_target_once_and_holds_the_text(choice: int) -> None:
    question, name = phrasings.ask(choice, "fi", "en", "{kept}")
    assert question.count("{kept}") == 1
    assert ("English" if name.startswith("en") else "englanniksi") in question
    assert len({phrasings.ask(other, "fi", "en", "x")[0] for other in range(phrasings.COUNT)}) == phrasings.COUNT


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "missing column"),
        ({"translation": {"en": ENGLISH}}, "missing language"),
        (pair(finnish=""), "empty content"),
        (pair(finnish=None), "content is not text"),
        (pair("Thank you.", "Kiitos."), "shorter than min_chars"),
        (pair(ENGLISH * 50, FINNISH * 50), "longer than max_chars"),
        (pair(ENGLISH * 3, FINNISH), "length ratio above max_length_ratio"),
        (pair(finnish=ENGLISH.upper()), "both sides say the same"),
        (pair(finnish="The ferry over the lake leaves in the morning."), "side in another language"),
        (pair(FINNISH, ENGLISH), "side in another language"),
    ],
)
def test_reasons(record: dict[str, Any], reason: str) -> None:
    _, refused = convert("europarl", "sft", [record])
    assert [row.kind for row in refused] == [reason]


def test_filters_can_be_lifted() -> None:
    rows, _ = convert("europarl", "sft", [pair(FINNISH, ENGLISH)], check_language=False)
    assert len(rows) == 2
    short, _ = convert("europarl", "sft", [pair("Thank you.", "Kiitos.")], min_chars=1)
    assert len(short) == 2


@pytest.mark.parametrize(
    ("keys", "at_fault"),
    [
        ({"pair": "fi-sv"}, []),
        ({"pair": "en"}, ["pair"]),
        ({"pair": "en-en"}, ["pair"]),
        ({"pair": "en-xx"}, ["pair"]),
        ({"directions": "en-sv"}, ["directions"]),
        ({"min_chars": 0}, ["min_chars"]),
        ({"min_chars": 50, "max_chars": 40}, ["min_chars"]),
        ({"max_length_ratio": 0.9}, ["max_length_ratio"]),
        ({"language": "fi"}, ["language"]),
    ],
)
def test_options(keys: dict[str, Any], at_fault: list[str]) -> None:
    assert problems("europarl", **keys) == at_fault


def at(path: Path | str, **keys: Any) -> Europarl:
    return Europarl(source="europarl", path=str(path), **keys)


def test_without_heliport_the_sides_cannot_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttrain.data.steps.identifier.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^x: the package heliport .*'\.\[language\]'`, or set check_language: false$"):
        prepare(Europarl(source="europarl", path="x"), [])
    unchecked = Europarl(source="europarl", path="x", check_language=False)
    assert prepare(unchecked, []) is unchecked


def test_moses_files_by_stem_by_either_file_and_by_folder(tmp_path: Path) -> None:
    (tmp_path / "europarl-v7.fi-en.en").write_text("a\n", encoding="utf-8")
    (tmp_path / "europarl-v7.fi-en.fi.gz").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    files = {"en": tmp_path / "europarl-v7.fi-en.en", "fi": tmp_path / "europarl-v7.fi-en.fi.gz"}
    for path in (tmp_path / "europarl-v7.fi-en", *files.values(), tmp_path):
        assert at(path).aligned_files == files
    assert list(at(tmp_path, pair="fi-en").aligned_files or {}) == ["fi", "en"]


def test_paths_that_are_no_moses_release(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    assert at(tmp_path).aligned_files is None
    assert at(tmp_path / "rows.jsonl").aligned_files is None
    assert at(tmp_path / "absent").aligned_files is None
    assert at("Helsinki-NLP/europarl").aligned_files is None


def test_a_missing_side_and_several_pairs(tmp_path: Path) -> None:
    (tmp_path / "one.en").write_text("a\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"beside it there is no one\.fi"):
        _ = at(tmp_path / "one").aligned_files
    for name in ("one.fi", "two.en", "two.fi"):
        (tmp_path / name).write_text("a\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"holds several aligned texts \(one\.en, two\.en\)"):
        _ = at(tmp_path).aligned_files


def test_the_hub_has_a_configuration_a_pair(tmp_path: Path) -> None:
    assert at("Helsinki-NLP/europarl", pair="fi-en").config == "en-fi"
    assert at("Helsinki-NLP/europarl", config="own").config == "own"
    assert at(tmp_path).config is None


def test_builtin_moses_files_are_aligned() -> None:
    files = at("builtin:samples/europarl.en-fi").aligned_files
    assert files is not None
    lines = [file.read_text(encoding="utf-8").split("\n") for file in files.values()]
    assert len(lines[0]) == len(lines[1]) > 30


def test_real_aligned_lines(real_data: Path) -> None:
    files = at(real_data / "tatoeba.en-fi").aligned_files
    assert files is not None
    lines = (file.read_text(encoding="utf-8").splitlines() for file in files.values())
    records = [pair(english, finnish) for english, finnish in zip(*lines, strict=True)]
    rows, refused = convert("europarl", "sft", records)
    wrong = [row for row in refused if row.kind == "side in another language"]
    assert len(wrong) <= 0.005 * len(records)
    assert len(rows) == 2 * (len(records) - len(refused))
    swapped = [pair(record["translation"]["fi"], record["translation"]["en"]) for record in records]
    passed, _ = convert("europarl", "sft", swapped, min_chars=30)
    assert len(passed) <= 0.02 * 2 * len(records)
