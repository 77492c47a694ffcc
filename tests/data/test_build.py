from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from posttrain.data.build import build as build_all
from posttrain.data.rows import content_id
from posttrain.data.sources import SOURCES, entry_options
from posttrain.data.split import normalised
from posttrain.errors import UserError
from posttrain.recipe.schema import Data, Validation

build = partial(build_all, report=False)

Rows = list[dict[str, Any]]
FILES = ("train", "validation", "rejected")


def write(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def table(out: Path, kind: str, name: str) -> Rows:
    import pyarrow.parquet

    return list(pyarrow.parquet.read_table(out / kind / f"{name}.parquet").to_pylist())


def chats(count: int, first: int = 0, **columns: Any) -> Rows:
    return [{"prompt": f"What is {n} plus one?", "completion": f"{n + 1}.", **columns} for n in range(first, count)]


def comparisons(count: int) -> Rows:
    return [{"prompt": f"what is {n}  plus ONE?", "chosen": f"{n + 1}.", "rejected": "I forget."} for n in range(count)]


def generic(path: str, **keys: Any) -> dict[str, Any]:
    return {"source": "generic", "path": path, **keys}


@pytest.fixture
def mixture(tmp_path: Path, fixtures: Path) -> Data:
    """Return sources with every trap: refusals, broken lines, duplicates, languages, sampling."""
    broken = tmp_path / "broken.jsonl"
    write(broken, chats(60, 20, language="en") + chats(5, language="sv"))
    broken.write_bytes(broken.read_bytes() + b'{"prompt": \n[]\n')
    return Data(
        sft=[
            generic(write(tmp_path / "chats.jsonl", chats(40)), language="en", license="CC0-1.0"),
            generic(str(broken), name="broken", language=["en", "fi"]),
            generic(str(fixtures / "refused.jsonl")),
            generic(str(fixtures / "messages.jsonl"), repeat=2.5),
            generic(write(tmp_path / "many.jsonl", chats(500, 100)), max_rows=50),
            {"source": "oasst", "path": str(fixtures / "oasst_messages.jsonl"), "take": "all"},
            {"source": "oasst", "path": str(fixtures / "oasst_trees.jsonl"), "name": "trees"},
        ],
        preference=[
            generic(write(tmp_path / "pairs.jsonl", comparisons(80)), fraction=0.9),
            {"source": "helpsteer3", "path": str(fixtures / "helpsteer3.jsonl")},
            {"source": "oasst", "path": str(fixtures / "oasst_trees.jsonl"), "pairs": "all"},
        ],
        validation=Validation(fraction=0.1, max_rows=12),
    )


def test_the_contract_of_the_rows(mixture: Data, tmp_path: Path) -> None:
    build(mixture, 42, tmp_path / "out")
    row = next(row for row in table(tmp_path / "out", "sft", "train") if row["license"])
    assert list(row) == ["id", "messages", "source", "language", "license", "meta"]
    assert row["id"] == content_id(row["messages"])
    assert (row["source"], row["language"], row["license"]) == ("generic", "en", "CC0-1.0")
    pair = table(tmp_path / "out", "preference", "train")[0]
    assert list(pair) == [
        "id", "prompt", "chosen", "rejected", "margin", "source", "language", "license", "meta"
    ]  # fmt: skip
    assert pair["id"] == content_id({key: pair[key] for key in ("prompt", "chosen", "rejected")})
    for rows in (table(tmp_path / "out", kind, "train") for kind in ("sft", "preference")):
        assert all(
            json.dumps(json.loads(row["meta"]), sort_keys=True) == json.dumps(json.loads(row["meta"])) for row in rows
        )


def test_nothing_disappears(mixture: Data, tmp_path: Path) -> None:
    summary = build(mixture, 42, tmp_path / "out")
    for kind, part in summary.sets.items():
        files = {name: table(tmp_path / "out", kind, name) for name in FILES}
        assert (part.train, part.validation, part.rejected) == tuple(len(files[name]) for name in FILES)
        for source in part.sources:
            refused = {step: sum(reasons.values()) for step, reasons in source.rejected.items()}
            later = sum(refused.get(step, 0) for step in ("language", "dedup", "split"))
            assert source.units == source.used + refused.get("convert", 0)
            assert source.rows == source.train + source.validation + source.sampled_out + later
        counted = Counter(
            (source.name, reason) for source in part.sources for reason, n in source.reasons() for _ in range(n)
        )
        assert counted == Counter((row["source"], row["reason"]) for row in files["rejected"])
    broken = summary.sets["sft"].sources[1]
    assert broken.rejected["read"] == {"not JSON": 1, "not an object": 1}
    assert broken.rejected["dedup"] == {"duplicate": 20}
    assert broken.rejected["language"] == {"language not selected": 5}
    assert summary.sets["sft"].sources[4].sampled_out == 350
    repeated = summary.sets["sft"].sources[3]
    assert repeated.train + repeated.train_repeats > repeated.train == 3 - repeated.validation


def test_summary_json_is_what_build_returns(mixture: Data, tmp_path: Path) -> None:
    summary = build(mixture, 42, tmp_path / "out")
    text = (tmp_path / "out" / "summary.json").read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(json.dumps(summary.to_json()))
    assert str(tmp_path) not in text
    assert list(summary.provenance())[:2] == ["data.sft.0", "data.sft.1"]
    files = ["preference", "sft", "summary.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files


def test_two_builds_are_byte_identical(mixture: Data, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_all(mixture, 42, tmp_path / name)
    for path in (path for path in (tmp_path / "one").rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path.name


def test_the_order_of_sources_and_rows_changes_no_bytes(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", [{**row, "row": 0} for row in chats(50)])
    two = write(tmp_path / "two.jsonl", chats(90, 50))
    build(Data(sft=[generic(one), generic(two, max_rows=20)]), 42, tmp_path / "first")
    build(Data(sft=[generic(two, max_rows=20), generic(one)]), 42, tmp_path / "second")
    for name in ("train", "validation"):
        files = [(tmp_path / out / "sft" / f"{name}.parquet").read_bytes() for out in ("first", "second")]
        assert files[0] == files[1]


def test_another_seed_gives_another_order_and_split(mixture: Data, tmp_path: Path) -> None:
    for seed in (1, 2):
        build(mixture, seed, tmp_path / str(seed))
    for name in ("train", "validation"):
        ids = [[row["id"] for row in table(tmp_path / str(seed), "sft", name)] for seed in (1, 2)]
        assert ids[0] != ids[1]
        assert set(ids[0]) != set(ids[1])


@pytest.mark.parametrize("seed", range(5))
def test_no_prompt_is_on_both_sides(mixture: Data, tmp_path: Path, seed: int) -> None:
    summary = build(mixture, seed, tmp_path / "out")
    sides: dict[str, set[str]] = {"train": set(), "validation": set()}
    trees: dict[str, set[str]] = {"train": set(), "validation": set()}
    for side in sides:
        for kind in ("sft", "preference"):
            for row in table(tmp_path / "out", kind, side):
                first = next(turn for turn in row.get("messages") or row["prompt"] if turn["role"] == "user")
                sides[side].add(normalised(first["content"]))
                if tree := json.loads(row["meta"]).get("tree"):
                    trees[side].add(tree)
    assert sides["train"]
    assert sides["validation"]
    assert not sides["train"] & sides["validation"]
    assert not trees["train"] & trees["validation"]
    assert all(0 < part.validation <= 12 for part in summary.sets.values())


def test_repeats_are_in_train_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", chats(100))
    summary = build(Data(sft=[generic(path, repeat=3)]), 42, tmp_path / "out")
    validation = [row["id"] for row in table(tmp_path / "out", "sft", "validation")]
    train = Counter(row["id"] for row in table(tmp_path / "out", "sft", "train"))
    assert len(validation) == len(set(validation)) == 5
    assert set(train.values()) == {3}
    assert len(train) == 95
    assert summary.sets["sft"].train == 285


def test_only_the_sets_of_the_recipe_are_made(tmp_path: Path) -> None:
    build(Data(preference=[generic(write(tmp_path / "a.jsonl", comparisons(30)))]), 42, tmp_path / "out")
    files = ["preference", "summary.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files


def test_a_row_without_a_language_takes_that_of_its_entry(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", chats(20) + chats(30, 20, language="Finnish"))
    build(Data(sft=[generic(path, language="fi")]), 42, tmp_path / "one")
    assert {row["language"] for row in table(tmp_path / "one", "sft", "train")} == {"fi"}
    summary = build(Data(sft=[generic(path, language=["fi", "en"])]), 42, tmp_path / "two")
    assert summary.sets["sft"].sources[0].rejected == {"language": {"language not stated": 20}}


def test_the_rows_load_with_datasets(mixture: Data, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    build(mixture, 42, tmp_path / "out")
    for kind in ("sft", "preference"):
        files = str(tmp_path / "out" / kind / "train.parquet")
        rows = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
        assert list(rows) == table(tmp_path / "out", kind, "train")


def test_all_problems_are_reported_at_once_and_nothing_is_written(tmp_path: Path, fixtures: Path) -> None:
    good = generic(write(tmp_path / "good.jsonl", chats(30)))
    shapeless = generic(write(tmp_path / "shapeless.jsonl", [{"body": "a"}]))
    prompts = generic(write(tmp_path / "prompts.jsonl", [{"text": "a"}]))
    empty = generic(write(tmp_path / "empty.jsonl", []))
    unanswered = generic(write(tmp_path / "unanswered.jsonl", [{"messages": [{"role": "user", "content": "Hi?"}]}]))
    truncated = tmp_path / "truncated.jsonl.gz"
    truncated.write_bytes(gzip.compress(json.dumps(chats(2000)).encode())[:200])
    data = Data(sft=[good, shapeless, empty, unanswered, prompts], preference=[generic(str(truncated))])
    with pytest.raises(UserError) as error:
        build(data, 42, tmp_path / "out")
    first, second, third, fourth, fifth = error.value.problems
    assert first.startswith(
        f"data.sft.1.path: {shapeless['path']}: has none of the known shapes; its columns are body;"
    )
    assert second == f"data.sft.2.path: {empty['path']}: holds no rows"
    assert third == f"data.sft.3.path: {unanswered['path']}: none of its 1 rows can be used: no assistant turn (1)"
    assert fourth.startswith(
        f"data.sft.4.path: {prompts['path']}: has the shape text, which holds no conversations to learn;"
    )
    assert fifth.startswith(f"data.preference.0.path: {truncated}: is not a whole gzip file")
    assert not (tmp_path / "out").exists()


def test_missing_files_and_bad_options_are_reported_before_anything_is_read(tmp_path: Path, fixtures: Path) -> None:
    data = Data(
        sft=[generic("missing.jsonl"), generic(str(tmp_path / "gone"))],
        preference=[{"source": "helpsteer3", "path": str(fixtures / "helpsteer3.jsonl"), "domains": ["maths"]}],
    )
    with pytest.raises(UserError) as error:
        build(data, 42, tmp_path / "out")
    keys = [problem.partition(":")[0] for problem in error.value.problems]
    assert keys == ["data.sft.0.path", "data.sft.1.path", "data.preference.0.domains"]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_there_is_left_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no rows"):
        build(Data(sft=[generic(write(tmp_path / "empty.jsonl", []))]), 42, out)
    assert [path.name for path in out.iterdir()] == ["note.txt"]
    good = Data(sft=[generic(write(tmp_path / "good.jsonl", chats(30)))])
    build(good, 42, out)
    with pytest.raises(UserError, match="holds a build already"):
        build(good, 42, out)


def test_nothing_to_build(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is nothing to build"):
        build(Data(), 42, tmp_path / "out")


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    data = Data(sft=[generic(write(tmp_path / "a.jsonl", chats(30)), fraction=0.001)])
    with pytest.raises(UserError, match=r"data\.sft: no row is left to train on"):
        build(data, 42, tmp_path / "out")


@pytest.mark.parametrize("lose", [lambda rows: islice(rows, 29), lambda rows: islice(rows, 1, None)])
def test_a_converter_that_loses_a_row_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lose: Any) -> None:
    kind = SOURCES["generic"]
    convert = kind.to_sft
    assert convert is not None
    monkeypatch.setitem(SOURCES, "generic", replace(kind, to_sft=lambda *given: lose(convert(*given))))
    with pytest.raises(RuntimeError, match="30 went in and 29 came out"):
        build(Data(sft=[generic(write(tmp_path / "a.jsonl", chats(30)))]), 42, tmp_path / "out")


def test_a_source_that_repeats_another_is_no_error(tmp_path: Path) -> None:
    entry = generic(write(tmp_path / "a.jsonl", chats(30)))
    summary = build(Data(sft=[entry, entry]), 42, tmp_path / "out")
    assert summary.sets["sft"].sources[1].rejected == {"dedup": {"duplicate": 30}}
    assert summary.sets["sft"].train + summary.sets["sft"].validation == 30


def test_importing_loads_nothing_heavy() -> None:
    modules = "posttrain.data.sources, posttrain.data.build, posttrain.data.read"
    heavy = ["torch", "transformers", "datasets", "trl", "pyarrow", "rich"]
    code = f"import {modules}, sys; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_entries_may_be_options_or_mappings() -> None:
    mapping = generic("x.jsonl", max_rows=3)
    assert entry_options(entry_options(mapping)) == entry_options(mapping)


def test_real_rows_build(real_data: Path, tmp_path: Path) -> None:
    entries = [
        {"source": "oasst", "path": str(real_data / f"oasst1-{language}-messages.jsonl")} for language in ("en", "fi")
    ]
    dolly = generic(str(real_data / "dolly-en-fi.jsonl"), language="fi")
    summary = build(Data(sft=[*entries, dolly], preference=entries), 42, tmp_path / "out")
    english, finnish, instructions = summary.sets["sft"].sources
    assert (english.rows, english.rejected) == (finnish.rows, finnish.rejected)
    assert instructions.rows == 2500
    # A tree and its translation are one group.
    assert english.validation == finnish.validation > 0


def test_a_build_that_was_cut_off_after_it_was_whole_is_taken_as_it_is(mixture: Data, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "out" / ".work"
    summary = build(mixture, 42, out, work=work)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert build(mixture, 42, out, work=work) == summary
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
