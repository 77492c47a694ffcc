"""The report holds what the data folder holds, runs nothing, asks for nothing, and is the same every time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from posttrain.data.report import write_report
from posttrain.data.report.examples import gather_duplicates, gather_rejected, split_hit
from posttrain.data.report.funnel import funnel, overview
from posttrain.data.report.gather import EXAMPLES, gather, measure
from posttrain.data.report.settings import in_words
from posttrain.data.report.tables import length_bias
from posttrain.data.report.terms import Terms, commercial_use
from posttrain.data.report.words import percent
from tests.data.finished import SCRIPT, SETTINGS, account, finish, sft, write_folder, write_set
from tests.helpers import HEAVY, run_python

_VOID = {"meta", "input", "br", "link", "img", "hr"}


class _Page(HTMLParser):
    """Collects elements, ids and texts, and checks that every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return write_report(folder, "Leipä & <bread>").read_text(encoding="utf-8")


def test_no_script_runs_and_nothing_is_asked_for(text: str) -> None:
    page = _Page(text)
    assert not [tag for tag, _ in page.elements if tag in ("script", "link", "iframe", "img", "object")]
    attributes = [(tag, name, value or "") for tag, several in page.elements for name, value in several.items()]
    assert not [name for _, name, _ in attributes if name.startswith("on")]
    assert {value[0] for tag, name, value in attributes if name.endswith("href") and tag != "a"} == {"#"}
    assert "url(" not in re.sub(r"url\(#\w+\)", "", text)
    assert "@import" not in text
    assert SCRIPT in page.text, "the row's text is shown as it is"
    assert "\0" not in text
    assert "Leipä & <bread>" in page.text


def test_links_of_the_contents_lead_somewhere(text: str) -> None:
    elements = _Page(text).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [value for tag, several in elements if tag == "a" and (value := several["href"] or "").startswith("#")]
    assert len(targets) > 20
    assert {target[1:] for target in targets} <= set(ids)
    for _, several in elements:
        if reference := several.get("xlink:href"):
            assert reference[1:] in ids


def test_equal_folders_give_equal_bytes(folder: Path, text: str, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from posttrain.data.report import write_report;"
        "write_report(pathlib.Path(sys.argv[1]), 'Leipä & <bread>')"
    )
    again = write_folder(tmp_path)
    assert run_python(["-c", code, str(again)], tmp_path).returncode == 0 or pytest.fail("the process failed")
    assert (again / "report.html").read_text(encoding="utf-8") == text
    assert str(folder) not in text


def test_the_page_says_what_was_read_lost_and_kept(text: str) -> None:
    page = _Page(text).text
    for words in (
        "30 messages in them",
        "16 rows made of 29 messages",
        "−1",
        "not taken into the mixture",
        "This mix may not be used commercially, because the licences of 9 rows",
        "mt bench",
        "81: Compose a blog",
        "similarity 0.82",
        "e-mail addresses",
        "Show all 30,000 characters",
        "margin 2",
        "ties: drop",
    ):
        assert words in page, words


def test_a_funnel_ends_with_what_is_left(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    sources = [source for part in summary["sets"].values() for source in part["sources"]]
    assert len(sources) == 3
    for source in sources:
        lines = funnel(source)
        kept = sum(int(line.count.replace(",", "")) for line in lines if line.kind == "left")
        assert kept == source["train"] + source["validation"]
        last_loss = [line for line in lines if line.kind == "loss"][-1]
        assert last_loss.left == pytest.approx(sum(line.width for line in lines if line.kind == "left"), abs=0.01)
        values = overview(source)
        lost = sum(values[name] for name in ("filtered", "contaminated", "duplicates", "split", "sampled_out"))
        assert values["rows"] == lost + kept


@pytest.mark.parametrize(("reasons", "last"), [(7, "reason 6"), (9, "3 other reasons")])
def test_rare_reasons_are_added_up_and_none_is_lost(reasons: int, last: str) -> None:
    rejected = {"length": {f"reason {number}": 10 - number for number in range(reasons)}}
    lost = sum(rejected["length"].values())
    counts: dict[str, Any] = dict.fromkeys(("read", "units", "used", "rows"), 100)
    lines = funnel(account("data.sft.0", "one", "row", **counts, train=100 - lost, rejected=rejected))
    losses = [line for line in lines if line.kind == "loss"]
    assert losses[-1].text == last
    assert sum(int(line.count.removeprefix("−")) for line in losses) == lost


def test_measures_agree_with_the_rows_one_by_one(folder: Path) -> None:
    for kind in ("sft", "preference"):
        path = folder / kind / "train.parquet"
        rows, measured = pyarrow.parquet.read_table(path).to_pylist(), measure(path)
        for place, row in enumerate(rows):
            turns = row.get("messages") or row["prompt"]
            answers = row.get("chosen") or turns
            assert measured.sources[measured.source[place]] == row["source"]
            assert measured.languages[measured.language[place]] == row["language"]
            assert measured.user[place] == sum(len(each["content"]) for each in turns if each["role"] == "user")
            assert measured.turns[place] == sum(each["role"] == "user" for each in turns)
            assert measured.answer[place] == sum(
                len(each["content"]) for each in answers if each["role"] == "assistant"
            )
            assert measured.rejected[place] == sum(len(each["content"]) for each in row.get("rejected", []))
            assert measured.margin[place] == row["margin"] if kind == "preference" else np.isnan(measured.margin[place])


def test_the_sample_depends_on_the_ids_alone_and_takes_no_row_twice(tmp_path: Path) -> None:
    rows = [sft(number, "one") for number in range(5000)]
    write_set(tmp_path / "a", "sft", [*rows, *rows], [], [], [])
    write_set(tmp_path / "b", "sft", rows[::-1], [], [], [])
    first, second = (gather(tmp_path / name / "sft" / "train.parquet").examples["one"] for name in "ab")
    assert first == second
    assert len({row["id"] for row in first}) == EXAMPLES
    places = [next(number for number, row in enumerate(rows) if row.id == each["id"]) for each in first]
    assert max(places) > 2500 > min(places)


def test_personal_data_is_counted_by_source_and_kind(folder: Path) -> None:
    found = gather(folder / "sft" / "train.parquet")
    assert found.pii == {"bread": {"email": 2, "phone": 1}}
    assert found.pii_rows == {"bread": 1}


def test_hits_are_counted_by_evaluation_set(folder: Path) -> None:
    found = gather_rejected(folder / "sft" / "rejected.parquet", ["mt bench", "mt", "example/ifeval"])
    assert found.hits == {"mt bench": 1, "example/ifeval": 1}
    assert len(found.contaminated) == 2
    assert ("decontaminate", "contaminated") not in found.examples
    assert ("dedup", "duplicate") in found.examples
    assert split_hit("mt bench 81: Compose", ["mt", "mt bench"]) == ("mt bench", "81: Compose")


def test_at_most_a_few_rejected_rows_a_reason_are_kept(tmp_path: Path) -> None:
    from posttrain.data.tables import refused_record

    records = [refused_record("one", "length", f"too long: {number}", {"number": number}) for number in range(6000)]
    write_set(tmp_path, "sft", [sft(0, "one")], [], records, [])
    examples = gather_rejected(tmp_path / "sft" / "rejected.parquet", []).examples["length", "too long"]
    numbers = [json.loads(row["record"])["number"] for row in examples]
    assert len(numbers) == 3
    assert max(numbers) > 1000, "they come from anywhere in the file"


def test_duplicates_are_counted_with_or_without_their_texts(folder: Path, tmp_path: Path) -> None:
    found = gather_duplicates(folder / "sft" / "duplicates.parquet")
    assert found.counts == {("exact", "bread", "bread"): 1, ("near", "leipä", "bread"): 2}
    assert sum(found.similarity) == 2
    assert [row["step"] for row in found.examples] == ["near", "exact"]
    assert not gather_duplicates(tmp_path / "duplicates.parquet").counts


def test_length_bias_in_numbers() -> None:
    bias = length_bias(np.array([10, 20, 30, 40], "int32"), np.array([20, 20, 10, 10], "int32"))
    assert bias == {"longer": 0.5, "equal": 0.25, "mean": 10.0, "ratio": 2.0}


@pytest.mark.parametrize("number", [1, 20])
def test_one_source_or_twenty_with_nothing_rejected_and_nothing_held_out(number: int, tmp_path: Path) -> None:
    rows = [sft(place * 100 + each, f"source {place}") for place in range(number) for each in range(3)]
    write_set(tmp_path, "sft", rows, [], [], [])
    accounts = [
        account(f"data.sft.{place}", f"source {place}", read=3, units=3, used=3, rows=3) for place in range(number)
    ]
    finish(tmp_path, {"sft": accounts}, {}, {"sft": (rows, [])})
    page = _Page(write_report(tmp_path, "plain").read_text(encoding="utf-8"))
    assert "No row was rejected." in page.text
    assert "No duplicates were found." in page.text
    assert "not compared with any evaluation set" in page.text
    assert len([tag for tag, _ in page.elements if tag == "svg"]) == number


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["yes", "unknown", "no"], "no"),
        (["yes", "unknown", "conditions"], "unknown"),
        (["yes", "conditions"], "conditions"),
        (["yes", "yes"], "yes"),
    ],
)
def test_the_strictest_licence_decides(answers: list[str], expected: str) -> None:
    terms = [
        Terms(id=f"{answer}-{place}", name="", commercial=answer, obligations=(), share_alike=False, rows=5,
              sources=("one",), url=None)
        for place, answer in enumerate(answers)
    ]  # fmt: skip
    answer, words = commercial_use(terms)
    assert answer == expected
    if expected != "yes":
        assert f"{expected}-{answers.index(expected)} (from one)" in words


def test_settings_are_told_with_their_parameters() -> None:
    lines = dict(in_words(SETTINGS))
    assert list(lines)[:3] == ["Truncation", "Length", "Language"], "in the order of the build"
    assert "Markup" not in lines, "it is off"
    assert lines["Length"] == (
        "Kept are user turns of at least 3 characters, answers of at most 8,000 characters and whole conversations of "
        "at most 4,096 tokens."
    )
    assert "mt bench and example/ifeval (revision abc)" in lines["Contamination"]
    assert "n is 6 for fi and 8 for other languages" in lines["Contamination"]
    assert lines["Steps left out"] == "leipä: repetition."
    assert "Validation" in lines
    assert [name for name, _ in in_words({})] == ["Duplicates"], "rows of equal content always go"


def test_a_share_is_never_rounded_to_all_or_nothing() -> None:
    assert [percent(1, 10**6), percent(10**6 - 1, 10**6), percent(0, 5), percent(5, 5), percent(1, 0)] == [
        "<0.1%",
        ">99.9%",
        "0.0%",
        "100.0%",
        "–",
    ]


def test_importing_it_is_light() -> None:
    code = f"import sys, posttrain.data.report, posttrain.data.card; print(set({HEAVY!r}) & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
