from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.files import check_source_exists, find_files, is_hub_id
from posttrain.data.read import Unreadable, read_records, read_source
from posttrain.data.sources import Source
from posttrain.errors import UserError

ROWS = [{"text": "yksi", "n": 1}, {"text": "kaksi", "n": 2}, {"text": "kolme ä", "n": 3}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def entry(path: Path | str, **keys: Any) -> Source:
    return Source(source="generic", path=str(path), **keys)


def write(path: Path) -> Path:
    """Write the rows in the format of the file's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".jsonl"):
        path.write_bytes(LINES)
    elif path.name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress(LINES))
    elif path.name.endswith(".json"):
        path.write_text(json.dumps(ROWS))
    elif path.name.endswith(".json.gz"):
        path.write_bytes(gzip.compress(json.dumps({"data": ROWS, "version": 1}).encode()))
    else:
        import pyarrow as pa
        import pyarrow.parquet

        table = pa.Table.from_pylist(ROWS)
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(table, path)
        else:
            opened = pa.ipc.new_stream if "stream" in path.name else pa.ipc.new_file
            with pa.OSFile(str(path), "wb") as sink, opened(sink, table.schema) as writer:
                writer.write_table(table)
    return path


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.parquet", "a.stream.arrow", "a.file.arrow"]
)
def test_every_format_reads_the_same(tmp_path: Path, name: str) -> None:
    assert list(read_records(entry(write(tmp_path / name)))) == ROWS


def test_json_lines_under_the_wrong_suffix_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + LINES)
    (tmp_path / "one.json").write_bytes(LINES.splitlines()[0])
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf\n" + LINES + b"\n\n")
    assert list(read_records(entry(tmp_path / "a.json"))) == ROWS
    assert list(read_records(entry(tmp_path / "one.json"))) == ROWS[:1]
    assert list(read_records(entry(tmp_path / "a.jsonl"))) == ROWS


def test_a_saved_dataset_reads(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": dataset, "test": dataset.select([0])}).save_to_disk(tmp_path / "splits")
    assert list(read_records(entry(tmp_path / "one"))) == ROWS
    assert list(read_records(entry(tmp_path / "splits"))) == ROWS
    assert list(read_records(entry(tmp_path / "splits", split="test"))) == ROWS[:1]


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b/2.parquet", "a.jsonl", ".hidden/x.jsonl", "README.md", "b/1.jsonl.gz"):
        write(tmp_path / name) if name != "README.md" else (tmp_path / name).write_text("# about")
    assert [file.name for file in find_files(entry(tmp_path))] == ["a.jsonl", "b/1.jsonl.gz", "b/2.parquet"]
    assert list(read_records(entry(tmp_path))) == ROWS * 3


def test_split_and_config_choose_files(tmp_path: Path) -> None:
    for name in ("preference/train.jsonl", "preference/validation.jsonl", "edit/train.jsonl", "training_notes.jsonl"):
        write(tmp_path / name)

    def names(**keys: Any) -> list[str]:
        return [file.name for file in find_files(entry(tmp_path, **keys))]

    assert names(config="preference") == ["train.jsonl"]
    assert names(config="preference", split="validation") == ["validation.jsonl"]
    assert names() == ["edit/train.jsonl", "preference/train.jsonl"]
    (problem,) = check_source_exists(entry(tmp_path, config="preference", split="test"))
    assert "no files of split 'test'; set `split` to one of train, validation" in problem
    (problem,) = check_source_exists(entry(tmp_path, config="feedback"))
    assert "no folder 'feedback'" in problem


def test_provenance(tmp_path: Path) -> None:
    import hashlib

    path = write(tmp_path / "folder" / "a.jsonl")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    provenance = read_source(entry(tmp_path / "folder")).provenance
    assert provenance["files"] == [{"name": "a.jsonl", "sha256": digest, "bytes": len(LINES)}]
    assert str(tmp_path) not in json.dumps(provenance)


def test_lines_that_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": \n[1, 2]\n"\xff"\n' + b"[" * 100_000 + b'\n{"text": "b"}')
    items = list(read_source(entry(path)).items)
    assert [item for item in items if isinstance(item, dict)] == [{"text": "a"}, {"text": "b"}]
    assert [item.reason for item in items if isinstance(item, Unreadable)] == [
        "not JSON: line 2 of a.jsonl",
        "not an object: line 3 of a.jsonl",
        "not UTF-8: line 4 of a.jsonl",
        "not JSON: line 5 of a.jsonl",
    ]
    with pytest.raises(UserError, match=r"not JSON: line 2 of a\.jsonl"):
        list(read_records(entry(path)))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.parquet", "a.stream.arrow", "a.file.arrow"])
def test_a_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 3])
    with pytest.raises(UserError) as error:
        list(read_records(entry(path)))
    (problem,) = error.value.problems
    assert problem.startswith(f"{path}: ")
    assert problem.endswith("fetch it again")


@pytest.mark.parametrize(("content", "problem"), [(b"", "it is empty"), (b"[1,", "is not JSON"), (b"7", "holds int")])
def test_json_that_holds_no_rows(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=problem):
        list(read_records(entry(tmp_path / "a.json")))


def test_a_hub_id_is_told_from_a_missing_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    assert is_hub_id("allenai/tulu-3-sft-mixture")
    for path in ("rows", "rows/missing", "other/rows.jsonl", "missing", "./a/b", "/a/b", "a/b/c", "builtin:x/y"):
        assert not is_hub_id(path), path


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.jsonl", "there is no such file or folder"),
        ("missing", "or give a hub id as owner/name"),
        ("builtin:samples/missing.jsonl", "builtin:samples/missing.jsonl: there is no such file"),
        ("empty", "no file in this folder can be read"),
        ("a.csv", "cannot read this kind of file"),
    ],
)
def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("a,b")
    (problem,) = check_source_exists(entry(path))
    assert words in problem
    assert problem.startswith(path)


def test_a_hub_dataset_that_cannot_be_reached() -> None:
    pytest.importorskip("datasets")
    assert check_source_exists(entry("no-such-owner/no-such-rows")) == []
    with pytest.raises(UserError, match="no-such-owner/no-such-rows: is no local path, and as an id of the hub"):
        read_source(entry("no-such-owner/no-such-rows"))


def test_a_hub_dataset_reads_at_the_commit_it_was_fetched_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    write(tmp_path / "repository" / "train.jsonl")
    commit = "0123456789abcdef0123456789abcdef01234567"
    load_builder = datasets.load_dataset_builder

    def fetched(path: str, config: str | None, revision: str | None) -> Any:
        assert (path, config, revision) == ("owner/name", None, "main")
        builder = load_builder(str(tmp_path / "repository"), cache_dir=str(tmp_path / "cache"))
        builder.base_path = f"hf://datasets/owner/name@{commit}/"
        return builder

    monkeypatch.setattr(datasets, "load_dataset_builder", fetched)
    reading = read_source(entry("owner/name", revision="main"))
    assert list(reading.items) == ROWS
    assert reading.provenance == {"path": "owner/name", "revision": commit, "files": []}
    with pytest.raises(UserError, match="owner/name: is no local path"):
        read_source(entry("owner/name", revision="main", split="nightly"))
