"""The tokenize-cpt stage: blocks and their order, shares, repetition, going on after a kill, and what is set aside."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from posttrain.errors import UserError
from posttrain.recipe.schema import Cpt, Data, Model, NewModel, Recipe, TextSource
from posttrain.stages.context import Context
from posttrain.train import text_files, text_tables, tokenize_text
from posttrain.train.text import is_held_out
from posttrain.train.text_progress import Progress
from posttrain.train.token_blocks import load_blocks, token_dtype
from posttrain.train.tokenizer import load_tokenizer
from tests.helpers import snapshot

LENGTH = 32  # tokens of a block
WORDS = ["järvi", "vene", "lake", "boat", "1 + 1", "\n", "é👋🏽", "def f(x):", "  ", "the fox", "?", "<|eot_id|>"]
NAMES = ("fi", "en", "code")
DOCUMENTS = {"fi": 300, "en": 220, "code": 60}


def write_texts(folder: Path) -> dict[str, list[str]]:
    """Write three sources, one packed, one of two files; return the documents of each."""
    source = random.Random(1)

    def document(name: str, number: int) -> str:
        return f"{name} {number}: " + " ".join(source.choice(WORDS) for _ in range(source.randint(1, 40)))

    made = {name: [document(name, number) for number in range(count)] for name, count in DOCUMENTS.items()}
    lines = {name: [json.dumps({"text": text}) + "\n" for text in found] for name, found in made.items()}
    (folder / "fi.jsonl.gz").write_bytes(gzip.compress("".join(lines["fi"]).encode()))
    (folder / "en").mkdir()
    for part, start in enumerate((0, 100)):
        (folder / "en" / f"{part}.jsonl").write_text("".join(lines["en"][start : start + (100 if part == 0 else 120)]))
    pyarrow.parquet.write_table(pyarrow.table({"text": made["code"]}), folder / "code.parquet", row_group_size=9)
    return made


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    monkeypatch.setattr(text_files, "PIECE_BYTES", 4000)
    monkeypatch.setattr(tokenize_text, "EVERY", 0.0)  # progress is noted after each piece
    monkeypatch.chdir(tmp_path)
    return write_texts(tmp_path)


def cpt(shares: tuple[float, ...] = (0.5, 0.3, 0.2), repeat: bool = True, **keys: Any) -> Cpt:
    paths = ("fi.jsonl.gz", "en", "code.parquet")
    entries = [TextSource(path=path, share=share) for path, share in zip(paths, shares, strict=False)]
    entries[-1] = replace(entries[-1], repeat=repeat)
    settings = {"max_length": LENGTH, "global_batch_size": 4, "validation_fraction": 0.1, **keys}
    return Cpt(text=entries, **settings)


def context(checkpoint: Path, output: Path, settings: Cpt, num_proc: int = 1, resume: bool = False) -> Context:
    output.mkdir(exist_ok=True)
    recipe = Recipe(name="t", model=Model(base=str(checkpoint)), cpt=settings, data=Data(num_proc=num_proc))
    return Context(
        stage="tokenize-cpt",
        recipe=recipe,
        resolved={},
        folder=output,
        inputs={},
        resume=resume,
        rank=0,
        world_size=1,
        console=Console(file=io.StringIO()),
    )


def build(checkpoint: Path, output: Path, settings: Cpt, **how: Any) -> tuple[list[list[int]], dict[str, Any]]:
    """Run the stage; return the blocks in their order, and `text.json`."""
    tokenize_text.tokenize_text(context(checkpoint, output, settings, **how))
    rows, _, about = load_blocks(output)
    return [row["input_ids"].tolist() for row in rows], about


def files_of(output: Path) -> dict[str, str]:
    return {name: digest for name, (_, digest) in snapshot(output).items() if not name.startswith(".")}


def test_blocks_are_the_documents_end_to_end(
    texts: dict[str, list[str]], checkpoint: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    found, about = build(checkpoint, output, cpt(num_train_epochs=1.0))
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    plain = load_tokenizer(checkpoint, Model())
    as_text = {"add_special_tokens": False, "split_special_tokens": True}  # `<|eot_id|>` in a document is text
    seen, held_out = 0, []
    for index, name in enumerate(NAMES):
        stored = np.fromfile(output / f"source-{index:02}.bin", dtype=about["dtype"]).tolist()
        documents = [list(group) for _, group in itertools.groupby(stored, lambda token: token == eos)][::2]
        expected = [text for text in texts[name] if not is_held_out(text, 0.1, 42)]
        held_out += [text for text in texts[name] if is_held_out(text, 0.1, 42)]
        assert len(documents) == len(expected) == about["sources"][index]["documents"]
        ids = sorted([bos, *plain.encode(text, **as_text)] for text in expected)
        assert sorted(documents) == ids
        blocks = about["sources"][index]["blocks"]
        assert blocks == len(stored) // LENGTH
        cut = [stored[start : start + LENGTH] for start in range(0, blocks * LENGTH, LENGTH)]
        of_source = [block for block in found if block in cut]
        assert len(of_source) >= about["sources"][index]["trained_tokens"] // LENGTH
        seen += about["sources"][index]["trained_tokens"] // LENGTH
    assert seen == len(found) == about["blocks"]
    assert len(held_out) == sum(source["held_out_documents"] for source in about["sources"]) > 20
    _, validation, _ = load_blocks(output)
    text = tokenizer.decode([token for row in validation for token in row["input_ids"]])
    assert sum(document.split(":")[0] in text for document in held_out) > 0.9 * len(held_out)
    assert len(validation) == about["validation_blocks"] > 5


def test_the_tokens_do_not_depend_on_the_number_of_processes_but_the_order_does_on_the_seed(
    texts: dict[str, list[str]], checkpoint: Path, tmp_path: Path
) -> None:
    one, _ = build(checkpoint, tmp_path / "one", cpt(max_steps=30))
    build(checkpoint, tmp_path / "three", cpt(max_steps=30), num_proc=3)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "three")
    other = context(checkpoint, tmp_path / "other", cpt(max_steps=30))
    other.recipe = replace(other.recipe, seed=1)
    tokenize_text.tokenize_text(other)
    assert [row["input_ids"].tolist() for row in load_blocks(tmp_path / "other")[0]] != one


def test_shares_are_those_asked_for_and_short_sources_are_repeated(
    texts: dict[str, list[str]], checkpoint: Path, tmp_path: Path
) -> None:
    found, about = build(checkpoint, tmp_path / "out", cpt(tokens=4000 * LENGTH + 7))
    assert about["tokens"] == about["blocks"] * LENGTH == 4000 * LENGTH
    for source, share in zip(about["sources"], (0.5, 0.3, 0.2), strict=True):
        assert abs(source["realised_share"] - share) <= 0.005
        assert source["trained_tokens"] == round(source["realised_share"] * 4000) * LENGTH
        assert source["epochs"] == pytest.approx(source["trained_tokens"] / LENGTH / source["blocks"], abs=1e-4)
        assert source["read_to_its_end"]
    code = about["sources"][2]
    assert code["epochs"] > 1
    before = sum(source["blocks"] for source in about["sources"][:2])
    order = [row["input_ids"] for row in load_blocks(tmp_path / "out")[0].with_format(None)]
    mine = [number for number in order if number >= before]
    assert sorted(mine[: code["blocks"]]) == list(range(before, before + code["blocks"]))
    assert mine[: code["blocks"]] != mine[code["blocks"] : 2 * code["blocks"]]
    assert len(found) == 4000


def test_a_source_that_is_not_repeated_ends_the_run(
    texts: dict[str, list[str]], checkpoint: Path, tmp_path: Path
) -> None:
    job = context(checkpoint, tmp_path / "out", cpt(repeat=False, max_steps=300))
    tokenize_text.tokenize_text(job)
    _, _, about = load_blocks(tmp_path / "out")
    code = about["sources"][2]
    assert about["ended_by"] == "code.parquet"
    assert code["blocks"] - 4 < code["trained_tokens"] // LENGTH <= code["blocks"]
    assert about["blocks"] % 4 == 0 < about["blocks"] < 1200
    assert "code.parquet has run out and is not repeated" in job.console.file.getvalue()  # type: ignore[attr-defined]


def test_no_more_of_a_source_is_read_than_is_needed(
    texts: dict[str, list[str]], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "PIECE_BYTES", 1000)
    monkeypatch.setattr(text_tables, "PIECE_BYTES", 1000)
    monkeypatch.setattr(text_tables, "AT_ONCE", 4)
    _, about = build(checkpoint, tmp_path / "out", cpt(max_steps=3))
    for source, share in zip(about["sources"], (0.5, 0.3, 0.2), strict=True):
        assert not source["read_to_its_end"]
        assert share * 12 - 1 < source["trained_tokens"] / LENGTH < share * 12 + 1
        assert source["blocks"] < 40  # what is needed, and the rest of the piece


class Killed(BaseException):
    """Stands for the end of the process between two instructions."""


@pytest.mark.parametrize("note", [0, 1, 8, 17, 21])
def test_an_interrupted_stage_goes_on_to_the_same_files(
    note: int, texts: dict[str, list[str]], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was appended behind the last note, in the middle of any source, is cut off and made again."""
    (tmp_path / "fi.jsonl.gz").write_bytes(
        gzip.compress(gzip.decompress((tmp_path / "fi.jsonl.gz").read_bytes()) + b"not json\n")
    )
    settings = cpt(max_steps=500)
    kept, added = Progress.note, Progress.add
    pieces: list[int] = []

    def adding(self: Progress, index: int, *rest: Any) -> None:
        pieces.append(index)
        added(self, index, *rest)

    monkeypatch.setattr(Progress, "add", adding)
    whole, _ = build(checkpoint, tmp_path / "whole", settings)
    in_all = pieces.copy()
    notes = itertools.count()

    def noting(self: Progress) -> None:
        if next(notes) == note:
            raise Killed
        kept(self)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "note", noting)
        with pytest.raises(Killed):
            build(checkpoint, tmp_path / "out", settings)
    pieces.clear()
    resumed, about = build(checkpoint, tmp_path / "out", settings, resume=True)
    assert resumed == whole
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert about["sources"][0]["set_aside"] == {"not JSON": 1}
    assert pieces == in_all[len(in_all) - len(pieces) :]
    assert note - 3 <= len(in_all) - len(pieces) <= note  # each piece was noted, and the end of each source once more


def test_what_cannot_be_used_is_set_aside_with_a_count(
    texts: dict[str, list[str]], checkpoint: Path, tmp_path: Path
) -> None:
    packed = gzip.compress(random.Random(0).randbytes(9000).hex().encode() + b"\n")
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts["fi"])
    (tmp_path / "fi.jsonl.gz").write_bytes(
        gzip.compress(lines + b'{"text": "\xff"}\n{"text": ""}\n{"text": ""}\n') + packed[: len(packed) // 2]
    )
    _, about = build(checkpoint, tmp_path / "out", cpt(max_steps=1000))
    source = about["sources"][0]
    assert source["set_aside"] == {"empty": 2, "not UTF-8": 1, "not a whole gzip file": 1}
    assert source["documents"] + source["held_out_documents"] == len(texts["fi"])
    table = pyarrow.parquet.read_table(tmp_path / "out" / "rejected.parquet").to_pylist()
    assert sorted(row["reason"] for row in table) == ["empty", "empty", "not UTF-8", "not a whole gzip file"]
    assert {row["step"] for row in table} == {"tokenize"}
    assert {row["source"] for row in table} == {"fi.jsonl.gz"}
    assert all(row["where"] for row in table)


def test_too_little_text_is_an_error_that_names_the_source(
    texts: dict[str, list[str]], checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "fi.jsonl.gz").write_bytes(gzip.compress(b'{"text": "vene"}\nnot json\n'))
    with pytest.raises(UserError, match=r"cpt.text.0.path: fi.jsonl.gz holds \d+ tokens, .*1 set aside: not JSON"):
        build(checkpoint, tmp_path / "out", cpt(max_steps=5, validation_fraction=0.0))
    with pytest.raises(UserError, match="not text enough for one step of 4000 blocks"):
        build(checkpoint, tmp_path / "few", few())


def few() -> Cpt:
    entries = [TextSource(path="en", share=0.5), TextSource(path="code.parquet", share=0.5)]
    return Cpt(text=entries, max_length=LENGTH, global_batch_size=4000)


def test_the_tokenizer_of_a_new_model_is_trained_on_the_beginning_of_each_source(
    texts: dict[str, list[str]], tmp_path: Path
) -> None:
    job = context(tmp_path, tmp_path / "out", cpt(max_steps=5))
    new = NewModel(vocab_size=300)
    job.recipe = replace(job.recipe, model=Model(new=new, chat_template="plain", dtype="float32"))
    tokenize_text.tokenize_text(job)
    tokenizer = load_tokenizer(tmp_path / "out" / tokenize_text.TOKENIZER, job.recipe.model)
    rows, _, _ = load_blocks(tmp_path / "out")
    assert len(tokenizer) == 300
    assert "vene" in tokenizer.decode([token for row in rows for token in row["input_ids"]])


def test_ids_take_two_bytes_where_they_fit() -> None:
    assert [token_dtype(size) for size in (300, 65536, 65537, 128256)] == ["<u2", "<u2", "<u4", "<u4"]
