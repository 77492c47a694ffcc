"""Reading text in pieces: the same documents whole or from any place on, and nothing that is left out in silence."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from posttrain.errors import UserError
from posttrain.recipe.schema import TextSource
from posttrain.train import text_files, text_hub, text_tables
from posttrain.train.text import read_documents
from posttrain.train.text_files import Aside, Piece, Place, documents, open_text
from posttrain.train.text_hub import open_hub

WORDS = ("järvi", "vene", "lake\u2028boat", "é👋🏽", "x = 1\r\ny", "a \n \n b")


def texts(count: int, name: str) -> list[str]:
    """Return different documents, none with a blank line in it."""
    return [f"{name} {number} {WORDS[number % len(WORDS)]}".replace("\r\n", "\n") for number in range(count)]


def rows(found: list[str]) -> bytes:
    return b"".join(json.dumps({"text": text, "n": 1}, ensure_ascii=False).encode() + b"\n" for text in found)


def write(folder: Path, kind: str) -> dict[str, list[str]]:
    """Write three files of a kind; return the documents of each."""
    content = {f"part-{number}": texts(23 + number, f"part {number}") for number in range(3)}
    folder.mkdir()
    for name, found in content.items():
        table = pa.table({"text": found, "n": [1] * len(found)})
        if kind == "txt":
            (folder / f"{name}.txt").write_bytes("\n\n".join(found).encode())
        elif kind == "txt.gz":
            (folder / f"{name}.txt.gz").write_bytes(gzip.compress("\r\n\r\n\r\n".join(found).encode() + b"\r\n"))
        elif kind == "jsonl":
            (folder / f"{name}.jsonl").write_bytes(b"\xef\xbb\xbf" + rows(found) + b"\n")
        elif kind == "jsonl.gz":
            (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(rows(found)))
        elif kind == "parquet":
            pyarrow.parquet.write_table(table, folder / f"{name}.parquet", row_group_size=7)
        elif kind == "arrow":
            with pa.ipc.new_stream(str(folder / f"{name}.arrow"), table.schema) as stream:
                stream.write_table(table, max_chunksize=5)
        else:
            (folder / f"{name}.json").write_text(json.dumps([{"text": text} for text in found]))
    return content


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (text_files, text_tables):
        monkeypatch.setattr(module, "PIECE_BYTES", 200)
        monkeypatch.setattr(module, "PIECE_ROWS", 5)
    monkeypatch.setattr(text_tables, "AT_ONCE", 3)


def read(pieces: Any) -> list[str | Aside]:
    return [document for piece in pieces for document in documents(piece, "text")]


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "jsonl", "jsonl.gz", "parquet", "arrow", "json"])
def test_documents_are_those_written_and_reading_goes_on_from_any_piece(kind: str, tmp_path: Path) -> None:
    content = write(tmp_path / "texts", kind)
    opened = open_text(TextSource(path=str(tmp_path / "texts")), seed=3)
    pieces: list[Piece] = list(opened.pieces(Place()))
    found = read(pieces)
    order = [file["name"].partition(".")[0] for file in opened.provenance["files"]]
    assert found == [text for name in order for text in content[name]]
    assert len(pieces) >= (6 if kind == "json" else 12)
    for number, piece in enumerate(pieces):
        assert read(opened.pieces(piece.after)) == read(pieces[number + 1 :])


def test_the_order_of_files_is_drawn_from_the_seed(tmp_path: Path) -> None:
    write(tmp_path / "texts", "jsonl")
    source = TextSource(path=str(tmp_path / "texts"))
    orders = {tuple(file["name"] for file in open_text(source, seed).provenance["files"]) for seed in range(20)}
    assert 3 < len(orders) <= 6
    assert open_text(source, 7).provenance == open_text(source, 7).provenance


def cut_off(path: Path, whole: bytes, share: float) -> None:
    path.write_bytes(whole[: int(len(whole) * share)])


def test_a_truncated_gzip_file_gives_what_is_whole_and_a_count(tmp_path: Path) -> None:
    # Text that does not compress, so that the cut is in the middle of it.
    found = [f"{number} " + str(hash((number, "x")) ** 3) for number in range(400)]
    cut_off(tmp_path / "a.jsonl.gz", gzip.compress(rows(found)), 0.6)
    read_back = list(read_documents(TextSource(path=str(tmp_path / "a.jsonl.gz")), seed=1))
    whole, [aside] = read_back[:-1], read_back[-1:]
    assert isinstance(aside, Aside)
    assert aside.reason.startswith("not a whole gzip file")
    assert aside.where == "a.jsonl.gz"
    assert whole == found[: len(whole)]
    assert 100 < len(whole) < 300


def test_a_damaged_file_does_not_end_the_ones_behind_it(tmp_path: Path) -> None:
    content = write(tmp_path / "texts", "parquet")
    damaged = tmp_path / "texts" / "part-1.parquet"
    cut_off(damaged, damaged.read_bytes(), 0.5)
    found = list(read_documents(TextSource(path=str(tmp_path / "texts")), seed=1))
    asides = [document for document in found if isinstance(document, Aside)]
    assert [(aside.where, aside.reason.partition(":")[0]) for aside in asides] == [
        ("part-1.parquet", "not a whole table")
    ]
    assert {text for text in found if isinstance(text, str)} == {*content["part-0"], *content["part-2"]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "\xff\xfe"}', "not UTF-8"),
        (b'{"text": "cut', "not JSON"),
        (b'["text"]', "not an object"),
        (b'{"text": null}', "no text"),
        (b'{"text": "  "}', "empty"),
        (b'{"text": "\\ud800"}', "half a surrogate pair"),
        (b'{"text": "' + b"x" * 5000 + b'"}', "longer than"),
    ],
)
def test_a_line_that_is_no_document_is_set_aside(
    line: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "LONGEST", 4000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(rows(["one"]) + line + b"\n" + rows(["two"]))
    one, aside, two = read_documents(TextSource(path=str(path)), seed=1)
    assert (one, two) == ("one", "two")
    assert isinstance(aside, Aside)
    assert aside.reason.startswith(reason)
    assert aside.where == f"byte {len(rows(['one']))} of a.jsonl"


def test_paragraphs_that_are_no_text_or_too_long_are_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LONGEST", 1000)
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\n\xff\xfe\n\n" + b"word\n" * 300 + b"\n\n" + b"y" * 2500 + b"\nz\n\ntwo")
    found = list(read_documents(TextSource(path=str(path)), seed=1))
    assert [document if isinstance(document, str) else document.reason for document in found] == [
        "one",
        "not UTF-8",
        "longer than 0 MiB",
        "longer than 0 MiB",
        "two",
    ]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow", "json"])
def test_a_column_that_is_not_there_is_named(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "texts", kind)
    with pytest.raises(UserError, match=r"have no column 'body'; they have .*text"):
        list(read_documents(TextSource(path=str(tmp_path / "texts"), column="body"), seed=1))


def test_a_folder_of_text_and_tables_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "texts", "jsonl")
    (tmp_path / "texts" / "README.txt").write_text("what this is")
    with pytest.raises(UserError, match=r"has both README.txt and part-0.jsonl; give a folder of one kind"):
        open_text(TextSource(path=str(tmp_path / "texts")), seed=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"cpt.text: .*no file in this folder can be read"):
        open_text(TextSource(path=str(tmp_path / "empty")), seed=1)


def test_shards_of_the_hub_are_streamed_as_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write(tmp_path / "texts", "jsonl")
    asked = []

    def builder(path: str, config: str | None, revision: str | None) -> Any:
        asked.append((path, config, revision))
        stream = datasets.load_dataset(str(tmp_path / "texts"), split="train", streaming=True)
        return SimpleNamespace(
            base_path=f"hf://datasets/{path}@{'a1' * 20}", config=None, as_streaming_dataset=lambda split: stream
        )

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    source = TextSource(path="owner/text", config="fin", revision="main")
    opened = open_text(source, seed=3)
    assert opened.provenance["revision"] == "a1" * 20
    pieces = list(opened.pieces(Place()))
    found = read(pieces)
    assert sorted(map(str, found)) == sorted(text for texts in content.values() for text in texts)
    assert found != [text for name in sorted(content) for text in content[name]]
    for number in (0, 3, len(pieces) - 2):
        again = open_text(source, seed=3, revision=opened.provenance["revision"])
        assert read(again.pieces(pieces[number].after)) == read(pieces[number + 1 :])
    assert asked == [("owner/text", "fin", "main"), *[("owner/text", "fin", "a1" * 20)] * 3]
    with pytest.raises(UserError, match=r"owner/text shard . have no column 'body'"):
        next(open_text(TextSource(path="owner/text", column="body"), seed=3).pieces(Place()))


def test_of_tables_on_the_hub_one_column_is_read_whatever_the_others_are(tmp_path: Path) -> None:
    for name, others in (("code", {"stars": [1, 2]}), ("issues", {"title": ["a", "b"]})):
        (tmp_path / "texts" / name).mkdir(parents=True)
        table = pa.table({**others, "content": [f"{name} 1", f"{name} 2"]})
        pyarrow.parquet.write_table(table, tmp_path / "texts" / name / "train.parquet")
    source = TextSource(path=str(tmp_path / "texts"), column="content")
    found = [text for piece in open_hub(source, 1, None).pieces(Place()) for text in documents(piece, "content")]
    assert sorted(map(str, found)) == ["code 1", "code 2", "issues 1", "issues 2"]
    with pytest.raises(UserError, match="have no column 'body'"):
        list(open_hub(replace(source, column="body"), 1, None).pieces(Place()))


def test_a_stream_that_breaks_off_is_no_end_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        num_shards = 1
        shard = with_format = lambda self, *args, **kwargs: self

        def iter(self, size: int) -> Any:
            yield pa.table({"text": ["one"]})
            raise ConnectionError("timed out")

    monkeypatch.setattr(text_hub, "load_stream", lambda source, revision: (Broken(), None))
    with pytest.raises(UserError, match="owner/text shard 0 broke off: timed out; the same command goes on"):
        list(open_text(TextSource(path="owner/text"), seed=3).pieces(Place()))
