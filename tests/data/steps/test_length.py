"""Lengths in characters are plain sums; tokens are what the tokenizer makes, whether it is asked or not."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.rows import sft_row, turn
from posttrain.data.steps.length import Length
from posttrain.data.steps.token_bounds import TokenBounds
from posttrain.errors import UserError
from posttrain.recipe.schema_data import LengthFilter
from tests.data.steps.made import pair, reasons, sft

TEXT = [
    "The lake is calm, and 12 boats are red.",
    "Järvi on tyyni ja 12 venettä on punaisia.",
    "def f(x):\n    return x",
]


def save(folder: Path, **changes: Any) -> Path:
    """Train a small byte-level BPE, change parts of its file, and return the file."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        TEXT * 5,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    content = json.loads(tokenizer.to_str()) | changes
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    Tokenizer.from_file(str(file))  # the changed file is one that the library reads
    return file


def texts(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    pieces = [
        "The lake",
        " järvi",
        "🙂",
        "ＡＢ",
        "\u0958",
        " ",
        "\n\n",
        "a" * 50,
        "12",
        "<|end|>",
        "漢字",
        "'s",
        "e\u0301",
        "x",
    ]
    return ["x" + "".join(rng.choice(pieces) for _ in range(rng.randrange(40))) for _ in range(count)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"min_prompt": 5}, None),
        ({"min_prompt": 6}, "prompt shorter than min_prompt: 5 characters"),
        ({"max_prompt": 5}, None),
        ({"max_prompt": 4}, "prompt longer than max_prompt: 5 characters"),
        ({"min_response": 7}, None),
        ({"min_response": 8}, "response shorter than min_response: 7 characters"),
        ({"max_response": 7}, None),
        ({"max_response": 6}, "response longer than max_response: 7 characters"),
    ],
)
def test_characters_of_all_turns_count(options: dict[str, int], reason: str | None) -> None:
    turns = [("system", "s" * 90), ("user", "ää"), ("assistant", "abc"), ("user", "ööö"), ("assistant", "abcd")]
    row = sft_row([turn(*one) for one in turns], source="made", language="fi", license=None, meta={}, units=())
    assert reasons(Length(LengthFilter(**options)), [row]) == [reason]


def test_the_rejected_answer_of_a_pair_may_be_short_but_not_long() -> None:
    step = Length(LengthFilter(min_response=3, max_response=6))
    rows = [pair("abcd", "x"), pair("x", "abcd"), pair("abcd", "x" * 7)]
    assert [reason is None for reason in reasons(step, rows)] == [True, False, False]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"normalizer": {"type": "NFC"}},
        {"normalizer": {"type": "NFKD"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Digits", "individual_digits": True},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                ],
            }
        },
    ],
    ids=["plain", "nfc", "nfkd", "prefix-space", "digits"],
)
def test_bounds_never_disagree_with_the_tokenizer(tmp_path: Path, changes: dict[str, Any]) -> None:
    from tokenizers import Tokenizer

    file = save(tmp_path, **changes)
    tokenizer = Tokenizer.from_file(str(file))
    rows = [sft(answer, prompt) for prompt, answer in zip(texts(1, 150), texts(2, 150), strict=True)]
    rows += [sft("The lake is calm. " * number) for number in range(1, 60)]
    rows += [sft("ö", "q"), sft("z", "q"), sft("zq", "qz")]  # no merges: as many tokens as bytes, or more
    for limit in (2, 3, 5, 40, 150):
        step = Length(LengthFilter(max_tokens=limit), file)
        expected = [
            sum(len(tokenizer.encode(m["content"], add_special_tokens=False).ids) for m in row.messages) > limit
            for row in rows
        ]
        assert [reason is not None for reason in reasons(step, rows)] == expected
        assert True in expected
        assert limit < 40 or False in expected


def test_which_tokenizers_have_bounds(tmp_path: Path) -> None:
    plain = TokenBounds.of(save(tmp_path))
    assert plain.upper
    assert not plain.ascii_only
    assert plain.longest == max(
        len(token) for token in json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    )
    composed = TokenBounds.of(save(tmp_path, normalizer={"type": "NFC"}))
    assert composed.upper
    assert composed.ascii_only
    assert TokenBounds.of(save(tmp_path, normalizer={"type": "Lowercase"})) == TokenBounds()
    assert TokenBounds.of(save(tmp_path, pre_tokenizer={"type": "Whitespace"})) == TokenBounds()
    spaced = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    assert TokenBounds.of(save(tmp_path, pre_tokenizer=spaced)) == TokenBounds()
    assert TokenBounds.of(save(tmp_path, pre_tokenizer=None)) == TokenBounds()


def test_certain_rows_are_not_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Length(LengthFilter(max_tokens=100), save(tmp_path))
    asked: list[int] = []
    count = step._count

    def counted(rows: Sequence[Sequence[Sequence[str]]]) -> list[int]:
        asked.append(len(rows))
        return count(rows)

    monkeypatch.setattr(step, "_count", counted)
    step([sft("ä" * 40, "k"), sft("The lake is calm. " * 7), sft("x" * 1_000_000)])
    assert asked == [1]


def test_a_pair_is_as_long_as_its_longer_conversation(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    file = save(tmp_path)
    prompt, short, long = ("The lake is calm. " * number for number in (5, 1, 9))
    tokenizer = Tokenizer.from_file(str(file))
    tokens = sum(len(tokenizer.encode(text).ids) for text in (prompt, long))
    rows = [pair(long, short, prompt), pair(short, long, prompt)]
    assert reasons(Length(LengthFilter(max_tokens=tokens), file), rows) == [None, None]
    too_long = reasons(Length(LengthFilter(max_tokens=tokens - 1), file), rows)
    assert too_long == [f"conversation longer than max_tokens: {tokens - 1} tokens"] * 2


def test_a_bound_on_tokens_needs_a_tokenizer(tmp_path: Path) -> None:
    Length(LengthFilter(max_prompt=3))
    with pytest.raises(UserError, match=r"length\.max_tokens: there is no tokenizer"):
        Length(LengthFilter(max_tokens=3))
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{")
    with pytest.raises(UserError, match="is no tokenizer that can be read"):
        Length(LengthFilter(max_tokens=3), broken)
