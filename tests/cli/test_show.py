"""`posttrain show`: the mask is what is trained, with and without colour, and on the page."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from rich.console import Console

from posttrain.cli import main
from posttrain.cli.show import render
from posttrain.train.preview import Cell, Section
from tests.helpers import make_tokenizer

Capture = pytest.CaptureFixture[str]
ANSWER = "Järvi on <b>tyyni</b> 👋🏽 & vene\non punainen."
RECIPE = """
name: shown
output_dir: out
model: {base: model, chat_template: llama-3.1, dtype: float32}
data:
  sft: [{source: generic, path: rows.jsonl}]
  preference: [{source: generic, path: pairs.jsonl}]
sft: {max_length: 400}
dpo: {max_length: 400}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe, a tokenizer and a data folder of four chats and a pair."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    make_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "mine.yaml").write_text(RECIPE)
    user = [{"role": "user", "content": "Is <i>it</i> calm?"}]
    chats = [
        [*user, {"role": "assistant", "content": answer}] for answer in (ANSWER, "Yes.", "No.<|eot_id|>", "w " * 900)
    ]
    rows: list[dict[str, Any]] = [
        {"id": f"row-{n}", "source": ("lake", "boat")[n % 2], "messages": messages} for n, messages in enumerate(chats)
    ]
    pair = {"id": "pair-0", "source": "lake", "prompt": user, "chosen": chats[0][1:], "rejected": chats[1][1:]}
    for kind, train, held_out in (("sft", rows[:3], rows[3:]), ("preference", [pair], [pair])):
        folder = tmp_path / "out" / "data" / kind
        folder.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(train), folder / "train.parquet")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(held_out), folder / "validation.parquet")
    return tmp_path


def printed(capsys: Capture, *arguments: str) -> str:
    assert main(["show", "mine.yaml", *arguments]) == 0
    return capsys.readouterr().out


def test_trained_text_stands_between_marks_where_there_is_no_colour(here: Path, capsys: Capture) -> None:
    text = printed(capsys)
    marked = re.findall("‹(.*?)›", text, re.DOTALL)
    assert marked[:2] == [f"{ANSWER}<|eot_id|>".replace("\n", "↵\n"), "Yes.<|eot_id|>"]
    assert "<|begin_of_text|>" in text
    assert "Is <i>it</i> calm?" in text
    assert "lake  train  row-2  refused: special-token text in content: <|eot_id|>" in text
    assert "row-3  400 tokens, " in text
    assert "cut to max_length" in text


def test_pairs_have_a_prompt_and_two_answers(here: Path, capsys: Capture) -> None:
    text = printed(capsys, "--split", "preference", "--rows", "1")
    prompt, chosen, rejected = re.split(r"\n(?=chosen|rejected)", text)
    assert "‹" not in prompt
    assert prompt.endswith("assistant<|end_header_id|>↵\n↵\n")
    assert chosen.partition(":\n")[2].startswith("‹Järvi")
    assert rejected.partition(":\n")[2].startswith("‹Yes.<|eot_id|>›")


def test_rows_are_chosen_by_number_source_and_id(here: Path, capsys: Capture) -> None:
    def ids(*arguments: str) -> list[str]:
        return re.findall(r"row-\d", printed(capsys, *arguments))

    assert ids("--rows", "2") == ["row-0", "row-1"]
    assert ids("--source", "boat") == ["row-1", "row-3"]
    assert ids("--id", "row-3") == ["row-3"]


def test_colour_says_the_same_as_the_marks() -> None:
    cells = [("<s>", False, True), ("a\n", False, False), ("b", True, False), ("c", True, False), ("</s>", True, True)]
    section = Section("", tuple(Cell(text, (0,), trained, special) for text, trained, special in cells), 5, 3)
    assert render(section, coloured=False).plain == "<s>a↵\n‹bc</s>›"
    coloured = render(section, coloured=True)
    assert coloured.plain == "<s>a↵\nbc</s>"
    styles = [str(span.style) for span in coloured.spans]
    assert [" on green3" in style or " on spring_green3" in style for style in styles] == [cell[1] for cell in cells]
    assert len(set(styles)) == 5  # neighbours differ, and special tokens from others
    console = Console(force_terminal=True, color_system="256", width=80)
    with console.capture() as capture:
        console.print(coloured)
    assert "\x1b[" in capture.get()


def test_the_page_holds_every_token_once_and_nothing_unescaped(here: Path, capsys: Capture) -> None:
    assert main(["show", "mine.yaml", "--html", "rows.html"]) == 0
    page = (here / "rows.html").read_text(encoding="utf-8")
    assert "<b>tyyni" not in page
    assert "<i>it" not in page
    assert not re.search(r"(?:src|href)=|https?:|@import", page)
    first = re.findall(r'<span class="([^"]*)" title="([\d ]+)">(.*?)</span>', page.split("<article>")[1], re.DOTALL)
    trained = "".join(unescape(text) for kind, _, text in first if "t" in kind.split())
    assert trained == f"{ANSWER}<|eot_id|>".replace("\n", "↵\n")
    assert [text for kind, _, text in first if "s" in kind.split()][-1] == "&lt;|eot_id|&gt;"
    assert "Refused: special-token text in content: &lt;|eot_id|&gt;" in page


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--id", "row-9"], "--id row-9: no sft row in out/data has this id"),
        (["--source", "sea"], "--source sea: the sft rows in out/data have none, only boat, lake"),
        (["output_dir=other"], "build them with posttrain data mine.yaml output_dir=other"),
        (["dpo=null", "--split", "preference"], "the recipe has no section dpo"),
        (["--html", "absent/rows.html"], "--html absent/rows.html: cannot be written"),
    ],
)
def test_what_cannot_be_shown(here: Path, capsys: Capture, arguments: list[str], problem: str) -> None:
    assert main(["show", "mine.yaml", *arguments]) == 2
    assert problem in capsys.readouterr().err
