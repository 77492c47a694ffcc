"""Which text is calibrated on and measured on: drawn by the seed, kept apart, and cut into rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain.chat import resolve
from posttrain.errors import UserError
from posttrain.recipe.schema_quantize import TextSet
from posttrain.release.quantize.blocks import Blocks, cut
from posttrain.release.quantize.text import Document, draw, read_documents, set_name
from tests.helpers import make_tokenizer


def chats(path: Path, count: int, first: int = 0) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"Count to {n}."}, {"role": "assistant", "content": f"{n} " * 30}]}
        for n in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, column: str | None = None) -> list[Document]:
    return list(read_documents(TextSet(path=str(path), column=column), "quantize.calibration.path"))


def blocks(documents: list[Document], samples: int = 4, length: int = 32, template: bool = True) -> Blocks:
    tokenizer = make_tokenizer()
    chosen = resolve("llama-3.1", None) if template else None
    return cut(documents, tokenizer, chosen, name="set", samples=samples, length=length, system=None)


def test_the_order_is_drawn_from_the_seed_and_not_that_of_the_file(tmp_path: Path) -> None:
    documents = read(chats(tmp_path / "a.jsonl", 40))
    one = draw(documents, 100_000, seed=1)
    assert one == draw(documents[::-1] + documents, 100_000, seed=1)  # turned round, and each there twice
    assert {document.id for document in one} == {document.id for document in documents}
    assert one != draw(documents, 100_000, seed=2)
    few = draw(documents, 20, seed=1)
    assert few == one[: len(few)]
    assert 0 < len(few) < len(one)


def test_text_let_go_while_reading_changes_nothing() -> None:
    documents = [Document(str(number), "x" * 50, (), frozenset([str(number)])) for number in range(400)]
    whole = sorted(draw(documents, 10_000, seed=3), key=lambda document: document.id)
    assert len(whole) == 400
    # so few tokens that the documents are cut down many times on the way
    assert draw(documents, 20, seed=3) == draw(documents, 10_000, seed=3)[: len(draw(documents, 20, seed=3))]


def test_the_same_prompt_or_text_is_kept_apart(tmp_path: Path) -> None:
    documents = read(chats(tmp_path / "a.jsonl", 20))
    used = blocks(draw(documents, 128, seed=1))
    left = draw(documents, 100_000, seed=1, without=used.marks)
    assert len(used.ids) + len(left) == len(documents)
    other = {"role": "user", "content": f"  {documents[0].messages[0]['content'].upper()}"}
    again = tmp_path / "b.jsonl"
    again.write_text(json.dumps({"messages": [other, {"role": "assistant", "content": "Something else."}]}) + "\n")
    assert not draw(read(again), 100, seed=1, without=documents[0].marks)
    assert draw(read(again), 100, seed=1, without=documents[1].marks)


def test_rows_are_the_rendered_conversations_end_to_end(tmp_path: Path) -> None:
    documents = read(chats(tmp_path / "a.jsonl", 8))
    tokenizer, template = make_tokenizer(), resolve("llama-3.1", None)
    found = blocks(documents, samples=3, length=32)
    stream = [token for row in found.rows for token in row]
    expected: list[int] = []
    for document in documents:
        text = tokenizer.apply_chat_template(list(document.messages), tokenize=False, chat_template=template.text)
        expected += tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [len(row) for row in found.rows] == [32, 32, 32]
    assert stream == expected[: len(stream)]
    assert found.texts[0].startswith("<|begin_of_text|>")
    assert found.identity()["tokens"] == 96


def test_without_a_template_turns_are_paragraphs_with_bos_and_end_of_text(tmp_path: Path) -> None:
    document = read(chats(tmp_path / "a.jsonl", 1, first=5))[0]
    found = blocks([document], samples=1, length=1000, template=False)
    tokenizer = make_tokenizer()
    assert found.texts == ("Count to 5.\n\n" + "5 " * 30,)
    assert len(found.rows) == 1  # less than one row of text is one shorter row
    assert found.rows[0][0] == tokenizer.bos_token_id
    assert found.rows[0][-1] == tokenizer.eos_token_id
    assert tokenizer.decode(found.rows[0][1:-1]) == found.texts[0]


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_plain_text_and_columns_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    texts = ["One paragraph.", "Another one."]
    lines = "\n\n".join(texts) if suffix == "txt" else "".join(json.dumps({"text": text}) + "\n" for text in texts)
    path.write_text(lines, encoding="utf-8")
    assert [document.text for document in read(path)] == texts
    if suffix == "jsonl":
        path.write_text("".join(json.dumps({"body": text}) + "\n" for text in texts), encoding="utf-8")
        assert [document.text for document in read(path, column="body")] == texts


def test_rows_without_text_are_refused_by_the_key(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"^quantize\.calibration\.path: .*conversations"):
        read(path)
    with pytest.raises(UserError, match="at least 16 are needed"):
        blocks([], samples=1, length=16)


def test_a_set_is_never_called_by_a_path() -> None:
    assert set_name(TextSet(path="/home/someone/rows.jsonl"), "own") == "rows.jsonl"
    assert set_name(TextSet(path="owner/name"), "own") == "owner/name"
    assert set_name(TextSet(path="/home/x.jsonl", name="mine"), "own") == "mine"
    assert set_name(TextSet(), "own") == "own"
