"""The tokenize stages: the tokens of each row, packing, counts, the number of processes, and going on after a kill."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from posttrain.chat import Encoded, Template, encode_chats, render, resolve
from posttrain.errors import UserError
from posttrain.recipe.schema import Data, Dpo, Launch, Model, Recipe, Sft
from posttrain.stages.context import Context
from posttrain.train import parts
from posttrain.train.dataset import IGNORED, NOTHING_LEFT, TOO_LONG, TokenSet, load_tokens
from posttrain.train.packing import pack
from posttrain.train.tokenize import tokenize_preference, tokenize_sft
from posttrain.train.tokenizer import equip, load_tokenizer
from tests.helpers import environment, snapshot

MAX_LENGTH = 256  # tokens
GROUP = 7  # rows of a row group, and so of a part
WORDS = ["järvi", "vene", "lake", "boat", "1 + 1", "\n\n", "é👋🏽", "def f(x):", "  ", "the fox", "?"]


def message(role: str, source: random.Random, most: int = 12) -> dict[str, str]:
    """Return a turn of random words."""
    return {"role": role, "content": " ".join(source.choice(WORDS) for _ in range(source.randint(1, most)))}


def sft_row(number: int, source: random.Random) -> dict[str, Any]:
    """Return a chat of one to three turns; some are too long, and some hold a special token."""
    messages = [message("system", source)] if source.random() < 0.3 else []
    for _ in range(source.randint(1, 3)):
        messages += [message("user", source, source.choice((12, 12, 80))), message("assistant", source)]
    if number % 11 == 3:
        messages[-1]["content"] += "<|eot_id|>"
    return {"messages": messages}


def preference_row(number: int, source: random.Random) -> dict[str, Any]:
    """Return a pair; some are too long."""
    return {
        "prompt": [message("user", source, source.choice((12, 12, 80)))],
        "chosen": [message("assistant", source)],
        "rejected": [message("assistant", source)],
    }


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose sets have several row groups."""
    folder, source = tmp_path_factory.mktemp("data"), random.Random(5)
    for kind, make in (("sft", sft_row), ("preference", preference_row)):
        (folder / kind).mkdir()
        for split, count in (("train", 61), ("validation", 15)):
            rows = [
                {"id": f"{split}-{n:03}", "source": ("mixed", "other")[n % 3 == 0], **make(n, source)}
                for n in range(count)
            ]
            path = folder / kind / f"{split}.parquet"
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=GROUP)
    return folder


def recipe_for(checkpoint: Path, num_proc: int = 1, dpo: Dpo | None = None, **sft: Any) -> Recipe:
    """Return a recipe with both sections."""
    return Recipe(
        name="test",
        model=Model(base=str(checkpoint), dtype="float32", chat_template="llama-3.1"),
        data=Data(num_proc=num_proc),
        sft=Sft(**({"max_length": MAX_LENGTH} | sft)),
        dpo=dpo or Dpo(max_length=MAX_LENGTH),
        launch=Launch(cpu=True),
    )


def tokenized(kind: str, recipe: Recipe, data: Path, folder: Path) -> Context:
    """Run the stage of a set into a folder."""
    resume = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    context = Context(
        stage=f"tokenize-{kind}",
        recipe=recipe,
        resolved={},
        folder=folder,
        inputs={"data": data},
        resume=resume,
        rank=0,
        world_size=1,
        console=Console(file=io.StringIO()),
    )
    {"sft": tokenize_sft, "preference": tokenize_preference}[kind](context)
    return context


def said(context: Context) -> str:
    """Return what the stage printed."""
    assert isinstance(context.console.file, io.StringIO)
    return context.console.file.getvalue()


def output(folder: Path) -> dict[str, bytes]:
    """Return the files that the stage leaves."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def rows_of(data: Path, kind: str, split: str = "train") -> list[dict[str, Any]]:
    return list(pyarrow.parquet.read_table(data / kind / f"{split}.parquet").to_pylist())


class RowByRow:
    """The tokens of a row, worked out with the public functions of transformers alone."""

    def __init__(self, checkpoint: Path, loss_on: str = "assistant") -> None:
        model = Model(base=str(checkpoint), chat_template="llama-3.1")
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(checkpoint, model)
        self.template: Template = equip(self.tokenizer, model)
        self.loss_on = loss_on

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, messages: list[dict[str, str]], **options: Any) -> Any:
        return render(self.template.text, messages, self.tokenizer.special_tokens_map, **options)

    def chat(self, row: dict[str, Any], max_length: int) -> tuple[list[int], list[int]] | None:
        if any("<|" in turn["content"] for turn in row["messages"]):
            return None
        rendered = self.text(row["messages"])
        ids: list[int] = []
        labels: list[int] = []
        at = 0
        for start, end in (*rendered.spans, (len(rendered.text), len(rendered.text))):
            for piece, trained in ((rendered.text[at:start], False), (rendered.text[start:end], True)):
                own = self.ids(piece)
                ids += own
                labels += own if trained or self.loss_on == "all" else [IGNORED] * len(own)
            at = end
        ids, labels = ids[:max_length], [IGNORED, *labels[1:max_length]]
        return (ids, labels) if any(label != IGNORED for label in labels) else None

    def pair(self, row: dict[str, Any], max_length: int) -> tuple[list[int], list[int], list[int]] | None:
        opened = self.text(row["prompt"], add_generation_prompt=True).text
        answers = [self.text([*row["prompt"], *row[side]]).text.removeprefix(opened) for side in ("chosen", "rejected")]
        prompt, chosen, rejected = map(self.ids, (opened, *answers))
        return None if len(prompt) + max(len(chosen), len(rejected)) > max_length else (prompt, chosen, rejected)


@pytest.mark.parametrize("loss_on", ["assistant", "all"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_tokens_are_those_of_each_row_by_itself(
    checkpoint: Path, data: Path, tmp_path: Path, loss_on: str, split: str
) -> None:
    tokenized("sft", recipe_for(checkpoint, packing="none", loss_on=loss_on), data, tmp_path / "out")
    tokens = load_tokens(tmp_path / "out")
    one = RowByRow(checkpoint, loss_on)
    expected = [one.chat(row, MAX_LENGTH) for row in rows_of(data, "sft", split)]
    kept = [row for row in expected if row is not None]
    assert 0 < len(kept) < len(expected)
    found = tokens.train if split == "train" else tokens.held_out
    assert [(row["input_ids"], row["labels"]) for row in found] == kept


def test_pairs_are_those_of_each_row_by_itself(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    tokenized("preference", recipe_for(checkpoint), data, tmp_path / "out")
    tokens = load_tokens(tmp_path / "out")
    one = RowByRow(checkpoint)
    for found, split in ((tokens.train, "train"), (tokens.held_out, "validation")):
        expected = [one.pair(row, MAX_LENGTH) for row in rows_of(data, "preference", split)]
        kept = [row for row in expected if row is not None]
        assert 0 < len(kept) < len(expected)
        assert [(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in found] == kept
    assert set(tokens.tally.refused) == {TOO_LONG}


@pytest.mark.parametrize("packing", ["bfd", "wrapped"])
def test_training_rows_are_packed_and_held_out_ones_are_not(
    checkpoint: Path, data: Path, tmp_path: Path, packing: str
) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    tokenized("sft", recipe_for(checkpoint, packing="none"), data, plain)
    context = tokenized("sft", recipe_for(checkpoint, packing=packing), data, packed)
    rows, blocks = load_tokens(plain), load_tokens(packed)
    expected = pack(rows.train.with_format("arrow")[:], MAX_LENGTH, packing)
    assert blocks.train.with_format("arrow")[:].to_pydict() == expected.to_pydict()
    assert blocks.held_out[:] == rows.held_out[:]
    assert context.metrics["blocks"] == len(expected) < len(rows.train)
    assert blocks.tally == rows.tally


def test_packing_goes_on_over_windows(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small windows lose no row, and a stream that is cut is the same whatever the window."""
    whole, small = tmp_path / "whole", tmp_path / "small"
    tokenized("sft", recipe_for(checkpoint, packing="wrapped"), data, whole)
    monkeypatch.setattr("posttrain.train.tokenize.WINDOW", 1)
    tokenized("sft", recipe_for(checkpoint, packing="wrapped"), data, small)
    assert load_tokens(small).train[:] == load_tokens(whole).train[:]
    tokenized("sft", recipe_for(checkpoint, packing="bfd"), data, tmp_path / "bfd")
    tokens = load_tokens(tmp_path / "bfd")
    assert sum(map(len, tokens.train["seq_lengths"])) == tokens.tally.kept
    assert sum(map(len, tokens.train["input_ids"])) == tokens.tally.tokens
    assert max(map(len, tokens.train["input_ids"])) <= MAX_LENGTH


def test_counts_are_of_the_rows(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    context = tokenized("sft", recipe_for(checkpoint, packing="none"), data, tmp_path / "out")
    tokens: TokenSet = load_tokens(tmp_path / "out")
    one = RowByRow(checkpoint)
    expected = [(row["source"], one.chat(row, MAX_LENGTH)) for row in rows_of(data, "sft")]
    for name, source in tokens.tally.sources.items():
        mine = [encoded for origin, encoded in expected if origin == name]
        kept = [encoded for encoded in mine if encoded is not None]
        trained = sum(label != IGNORED for _, labels in kept for label in labels)
        assert (source.rows, source.kept) == (len(mine), len(kept))
        assert (source.tokens, source.trained_tokens) == (sum(len(ids) for ids, _ in kept), trained)
        assert context.metrics["sources"][name]["trained_tokens"] == trained
    assert sum(source["row_share"] for source in context.metrics["sources"].values()) == pytest.approx(1, abs=1e-5)
    refused = pyarrow.parquet.read_table(tmp_path / "out" / "rejected.parquet").to_pylist()
    assert len(refused) == sum(tally.rows - tally.kept for tally in (tokens.tally, tokens.tally_held_out))
    special = [row for row in refused if row["reason"] == "special-token text in content"]
    assert {row["id"] for row in special if row["split"] == "train"} == {f"train-{n:03}" for n in range(3, 61, 11)}
    assert special[0]["detail"] == "<|eot_id|>"
    assert {row["reason"] for row in refused} == {"special-token text in content", NOTHING_LEFT}
    assert tokens.tally.truncated > 0
    for words in ("mixed ", "other ", "share", f"{tokens.tally.trained_tokens:,} trained"):
        assert words in said(context)


@pytest.mark.parametrize("kind", ["sft", "preference"])
def test_two_processes_leave_the_same_bytes_as_one(checkpoint: Path, data: Path, tmp_path: Path, kind: str) -> None:
    for number in (1, 2):
        tokenized(kind, recipe_for(checkpoint, num_proc=number), data, tmp_path / str(number))
    assert output(tmp_path / "1") == output(tmp_path / "2")


KILLED = """
import sys, time
from pathlib import Path
from posttrain.train import parts
from tests.train.test_tokenize import recipe_for, tokenized

def slowly(rows, encoder, _encode=parts.encode_sft, **options):
    time.sleep(0.3)
    return _encode(rows, encoder, **options)

parts.encode_sft = slowly
checkpoint, data, folder = map(Path, sys.argv[1:])
print("begins", flush=True)
tokenized("sft", recipe_for(checkpoint), data, folder)
"""


def test_killed_and_resumed_equals_uninterrupted(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    folder = tmp_path / "cut"
    command = [sys.executable, "-c", KILLED, str(checkpoint), str(data), str(folder)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, cwd=tmp_path) as process:
        until = time.monotonic() + 60
        while len(list(folder.glob(".work/*.arrow"))) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finished = {name: state for name, state in snapshot(folder / ".work").items() if name.endswith(".arrow")}
    assert 3 <= len(finished) < 12
    encoded = []

    def counting(rows: Any, encoder: Any, **options: Any) -> Any:
        encoded.append(rows[0]["id"])
        return original(rows, encoder, **options)

    original = parts.encode_sft
    monkeypatch.setattr(parts, "encode_sft", counting)
    tokenized("sft", recipe_for(checkpoint), data, folder)
    assert len(encoded) == 12 - len(finished)  # 9 parts of 61 rows, and 3 of 15
    assert finished.items() <= snapshot(folder / ".work").items()
    tokenized("sft", recipe_for(checkpoint), data, tmp_path / "whole")
    assert output(folder) == output(tmp_path / "whole")


def test_a_set_without_a_trained_token_is_an_error(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no SFT row .* can be trained on: no trained token .* raise sft.max_length"):
        tokenized("sft", recipe_for(checkpoint, max_length=4), data, tmp_path / "sft")
    with pytest.raises(UserError, match=r"no preference row .* raise dpo.max_length"):
        tokenized("preference", recipe_for(checkpoint, dpo=Dpo(max_length=4)), data, tmp_path / "pairs")


def test_what_is_trained_is_what_the_chat_encoder_marks(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    tokenized("sft", recipe_for(checkpoint, packing="none", max_length=10_000), data, tmp_path / "out")
    tokenizer = load_tokenizer(checkpoint, Model(base=str(checkpoint)))
    template = resolve("llama-3.1", tokenizer)
    results = encode_chats(tokenizer, template, [row["messages"] for row in rows_of(data, "sft")], "assistant")
    marked = [(row.input_ids, row.mask) for row in results if isinstance(row, Encoded)]
    found = [
        (row["input_ids"], [int(label != IGNORED) for label in row["labels"]])
        for row in load_tokens(tmp_path / "out").train
    ]
    assert found == marked


def test_counts_file_is_plain_json(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    tokenized("sft", recipe_for(checkpoint), data, tmp_path / "out")
    counts = json.loads((tmp_path / "out" / "tokens.json").read_text())
    assert (counts["max_length"], counts["packing"]) == (MAX_LENGTH, "bfd")
    train = counts["train"]
    assert train["rows"] == 61 == train["kept"] + sum(train["refused"].values())
    assert train["blocks"] == len(load_tokens(tmp_path / "out").train)
