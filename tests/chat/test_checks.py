"""Tokenizer, template and embedding: what does not fit is told before training."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from posttrain.chat import Encoded, Template, check_tokenizer, choose_pad_token, encode_chats, resolve
from posttrain.errors import UserError
from tests.chat.conftest import LLAMA_TOKENS, byte_level_tokenizer
from tests.chat.conversations import CHATS

Tokenizers = dict[str, PreTrainedTokenizerFast]


def llama(**roles: str) -> PreTrainedTokenizerFast:
    return byte_level_tokenizer(LLAMA_TOKENS, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>", **roles)


@pytest.mark.parametrize("name", ["llama-3.1", "chatml", "plain"])
def test_a_tokenizer_with_the_chosen_pad_token_has_no_problem(name: str) -> None:
    tokenizer = {
        "llama-3.1": llama(),
        "chatml": byte_level_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>"),
        "plain": byte_level_tokenizer(["<s>", "</s>", "<unk>"], bos_token="<s>", eos_token="</s>", unk_token="<unk>"),
    }[name]
    template = resolve(name, None)
    assert [problem for problem in check_tokenizer(tokenizer, template, None) if "no pad token" in problem]
    tokenizer.pad_token = choose_pad_token(tokenizer, template)
    assert check_tokenizer(tokenizer, template, len(tokenizer)) == []


@pytest.mark.parametrize(
    ("pad", "chosen"),
    [
        (None, "<|finetune_right_pad_id|>"),
        ("<|eot_id|>", "<|finetune_right_pad_id|>"),
        ("<|end_of_text|>", "<|finetune_right_pad_id|>"),
        ("<|python_tag|>", "<|python_tag|>"),
    ],
)
def test_the_pad_token_is_kept_unless_it_is_trained(pad: str | None, chosen: str) -> None:
    tokenizer = llama(**({"pad_token": pad} if pad else {}))
    assert choose_pad_token(tokenizer, resolve("llama-3.1", None)) == chosen


def test_a_pad_token_that_ends_turns_is_a_problem(chatml_tokenizer: PreTrainedTokenizerFast) -> None:
    (problem,) = check_tokenizer(chatml_tokenizer, resolve("chatml", None), None)
    assert "the pad token <|im_end|> also ends a turn" in problem
    assert "pad with <|endoftext|> instead" in problem


def test_no_token_to_pad_with() -> None:
    tokenizer = byte_level_tokenizer(["<|endoftext|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    with pytest.raises(UserError, match=r"no token to pad with .*\(<\|endoftext\|>\)"):
        choose_pad_token(tokenizer, resolve("plain", None))
    (problem,) = check_tokenizer(tokenizer, resolve("plain", None), None)
    assert "Add one to the tokenizer" in problem


def test_what_ends_a_text_does_not_pad() -> None:
    tokenizer = byte_level_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|endoftext|>")
    with pytest.raises(UserError, match=r"\(<\|endoftext\|>, <\|im_end\|>\)"):
        choose_pad_token(tokenizer, resolve("chatml", None))


def test_bos_and_eos_in_one_token_can_be_encoded() -> None:
    tokenizer = byte_level_tokenizer(["<|endoftext|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    (encoded,) = encode_chats(tokenizer, resolve("plain", None), [CHATS["three turns"]], "assistant")
    assert isinstance(encoded, Encoded)
    assert encoded.input_ids.count(tokenizer.eos_token_id) == 4


def test_markup_that_is_not_in_the_vocabulary(tokenizers: Tokenizers) -> None:
    (problem,) = check_tokenizer(tokenizers["plain"], resolve("llama-3.1", None), None)
    assert "<|start_header_id|>, <|end_header_id|>, <|eot_id|>, which the tokenizer does not know" in problem


def test_two_bos() -> None:
    tokenizer = llama(pad_token="<|finetune_right_pad_id|>")
    for text in ("{{ bos_token }}", "<|begin_of_text|>"):
        template = Template("twice.jinja", text + resolve("llama-3.1", None).text, has_markers=True)
        (problem,) = check_tokenizer(tokenizer, template, None)
        assert "writes the BOS <|begin_of_text|> 2 times" in problem


def test_an_embedding_that_is_too_small(base_tokenizer: PreTrainedTokenizerFast) -> None:
    template, size = resolve("plain", None), len(base_tokenizer)
    (problem,) = check_tokenizer(base_tokenizer, template, size - 1)
    assert f"the model's embedding has {size - 1} rows but the tokenizer {size} tokens: " in problem
    assert check_tokenizer(base_tokenizer, template, size) == []
    assert check_tokenizer(base_tokenizer, template, size + 64) == []


def test_all_problems_are_told_together(tmp_path: Path, chatml_tokenizer: PreTrainedTokenizerFast) -> None:
    path = tmp_path / "refusing.jinja"
    path.write_text("{{ raise_exception('closed') }}", encoding="utf-8")
    problems = check_tokenizer(chatml_tokenizer, resolve(str(path), None), 3)
    assert ["closed" in problems[0], "embedding has 3 rows" in problems[1]] == [True, True]
