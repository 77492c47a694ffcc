"""What is trained is the assistant's text and the end of its turn, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from posttrain.chat import (
    Encoded,
    EncodedPair,
    Refusal,
    Template,
    builtin_templates,
    encode_chats,
    encode_preferences,
    render,
    resolve,
)
from posttrain.chat.portable import portable
from posttrain.errors import UserError
from tests.chat.conversations import CHATS, SPECIAL_TEXT, TOOL_CHATS, Messages, chat

Tokenizers = dict[str, PreTrainedTokenizerFast]
NAMES = list(builtin_templates())
END = {"llama-3.1": "<|eot_id|>", "chatml": "<|im_end|>", "plain": "</s>"}


def trained_runs(tokenizer: PreTrainedTokenizerFast, encoded: Encoded) -> list[str]:
    """Decode each unbroken run of trained tokens."""
    runs: list[list[int]] = []
    before = 0
    for token, trained in zip(encoded.input_ids, encoded.mask, strict=True):
        if trained and not before:
            runs.append([])
        if trained:
            runs[-1].append(token)
        before = trained
    return [tokenizer.decode(run) for run in runs]


def encode_one(tokenizer: PreTrainedTokenizerFast, template: Template, messages: Messages) -> Encoded:
    (encoded,) = encode_chats(tokenizer, template, [messages], "assistant")
    assert isinstance(encoded, Encoded), encoded
    return encoded


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("messages", CHATS.values(), ids=CHATS)
def test_mask_is_the_assistants_text_and_the_end_of_its_turn(
    tokenizers: Tokenizers, name: str, messages: Messages
) -> None:
    tokenizer, template = tokenizers[name], resolve(name, None)
    encoded = encode_one(tokenizer, template, messages)
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    kept = answers if name == "chatml" else [answer.strip() for answer in answers]
    assert trained_runs(tokenizer, encoded) == [answer + END[name] for answer in kept]
    assert tokenizer.decode(encoded.input_ids) == render(template.text, messages, tokenizer.special_tokens_map).text


@pytest.mark.parametrize("name", NAMES)
def test_loss_on_all_trains_every_token_of_the_same_ids(tokenizers: Tokenizers, name: str) -> None:
    tokenizer, template = tokenizers[name], resolve(name, None)
    on_assistant = encode_chats(tokenizer, template, list(CHATS.values()), "assistant")
    on_all = encode_chats(tokenizer, template, list(CHATS.values()), "all")
    for some, every in zip(on_assistant, on_all, strict=True):
        assert isinstance(some, Encoded)
        assert isinstance(every, Encoded)
        assert every.input_ids == some.input_ids
        assert set(every.mask) == {1}
        assert 0 in some.mask


@pytest.mark.parametrize("name", ["llama-3.1", "plain"])
@pytest.mark.parametrize("messages", CHATS.values(), ids=CHATS)
def test_exactly_one_bos(tokenizers: Tokenizers, name: str, messages: Messages) -> None:
    tokenizer = tokenizers[name]
    encoded = encode_one(tokenizer, resolve(name, None), messages)
    assert encoded.input_ids[0] == tokenizer.bos_token_id
    assert encoded.input_ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_rows_one_by_one(tokenizers: Tokenizers, name: str) -> None:
    tokenizer, template = tokenizers[name], resolve(name, None)
    rows: list[Messages] = [*CHATS.values(), *SPECIAL_TEXT.values(), *TOOL_CHATS.values(), [], chat("Alone?")]
    together = encode_chats(tokenizer, template, rows, "assistant")
    assert together == [encode_chats(tokenizer, template, [row], "assistant")[0] for row in rows]
    assert {type(result) for result in together} == {Encoded, Refusal}
    assert encode_chats(tokenizer, template, [], "assistant") == []


def test_a_call_and_what_ends_it_are_trained(llama_tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_one(llama_tokenizer, resolve("llama-3.1", None), TOOL_CHATS["text"])
    call = '{"name": "weather", "parameters": {"city": "<b>&"}}<|eot_id|>'
    assert trained_runs(llama_tokenizer, encoded) == [call, "It rains.<|eot_id|>"]


def test_keys_that_arrow_filled_with_null_change_nothing(llama_tokenizer: PreTrainedTokenizerFast) -> None:
    template = resolve("llama-3.1", None)
    messages = CHATS["three turns"]
    filled = [{**message, "tool_calls": None, "name": None} for message in messages]
    assert encode_one(llama_tokenizer, template, filled) == encode_one(llama_tokenizer, template, messages)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no messages"),
        (chat("Alone?"), "no assistant turn"),
        (chat("What is <|eot_id|>?", "An end."), "special-token text in content: <|eot_id|>"),
        (chat("Hi", "<|begin_of_text|>"), "special-token text in content: <|begin_of_text|>"),
        (chat("Hi", "Ho", system="<|python_tag|>"), "special-token text in content: <|python_tag|>"),
        (
            [{"role": "<|eot_id|>", "content": "Hi"}, *chat("Hi", "Ho")],
            "special-token text in content: <|eot_id|>",
        ),
        (
            [*TOOL_CHATS["text"][:3], {"role": "tool", "content": {"a": ["<|eom_id|>"]}}],
            "special-token text in content: <|eom_id|>",
        ),
        ([{"content": "Hi"}], "malformed message: turn 0 has no role"),
        ([*chat("Hi"), {"role": "assistant", "content": None}], "content is not text: turn 1, assistant"),
        ([*chat("Hi"), {"role": "assistant"}], "content is not text: turn 1, assistant"),
        ([*chat("Hi"), {"role": "assistant", "content": ["Ho"]}], "content is not text: turn 1, assistant"),
        (
            [*chat("Hi"), {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}] * 2}],
            "the template refused the conversation: Llama 3.1 makes one tool call a turn, not 2",
        ),
    ],
)
def test_refusals(llama_tokenizer: PreTrainedTokenizerFast, messages: Messages, reason: str) -> None:
    rows = [messages, CHATS["one turn"]]
    refused, kept = encode_chats(llama_tokenizer, resolve("llama-3.1", None), rows, "assistant")
    assert refused == Refusal(reason)
    assert isinstance(kept, Encoded)


def test_special_text_of_another_tokenizer_is_text(tokenizers: Tokenizers) -> None:
    for name, messages in [("llama-3.1", SPECIAL_TEXT["ChatML's"]), ("chatml", SPECIAL_TEXT["Llama's"])]:
        encoded = encode_one(tokenizers[name], resolve(name, None), messages)
        assert len(trained_runs(tokenizers[name], encoded)) == 2


@pytest.mark.parametrize("bos", ["{{- bos_token }}", "<|begin_of_text|>"], ids=["variable", "written out"])
def test_a_template_that_repeats_the_bos_is_refused(llama_tokenizer: PreTrainedTokenizerFast, bos: str) -> None:
    once = resolve("llama-3.1", None).text.replace("{{- bos_token }}", bos)
    assert isinstance(encode_one(llama_tokenizer, Template("once", once, has_markers=True), CHATS["system"]), Encoded)
    twice = Template("twice", once.replace(bos, bos + bos), has_markers=True)
    assert encode_chats(llama_tokenizer, twice, [CHATS["system"]], "assistant") == [Refusal("not exactly one BOS: 2")]
    pair = {"prompt": chat("Hi"), "chosen": answer("a"), "rejected": answer("b")}
    assert encode_preferences(llama_tokenizer, twice, [pair]) == [Refusal("not exactly one BOS: 2")]


def test_a_template_without_markers_cannot_mask(llama_tokenizer: PreTrainedTokenizerFast) -> None:
    unmarked = unmarked_copy("llama-3.1")
    with pytest.raises(UserError, match=r"has no \{% generation %\}"):
        encode_chats(llama_tokenizer, unmarked, [CHATS["one turn"]], "assistant")
    (encoded,) = encode_chats(llama_tokenizer, unmarked, [CHATS["one turn"]], "all")
    assert isinstance(encoded, Encoded)


def test_markers_that_hold_nothing_are_nothing_to_train_on(llama_tokenizer: PreTrainedTokenizerFast) -> None:
    text = (
        "{% for m in messages %}{% if m.content == '42' %}{% generation %}{{ m.content }}<|eot_id|>{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    template = Template("partial", text, has_markers=True)
    assert encode_chats(llama_tokenizer, template, [chat("Hi", "Ho")], "assistant") == [Refusal("nothing to train on")]
    pair = {"prompt": chat("Hi"), "chosen": answer("a"), "rejected": answer("b")}
    assert encode_preferences(llama_tokenizer, template, [pair]) == [Refusal("nothing to train on")]


# Preference pairs


def answer(content: str) -> Messages:
    return [{"role": "assistant", "content": content}]


def unmarked_copy(name: str) -> Template:
    return Template(f"{name}, unmarked", portable(resolve(name, None).text), has_markers=False)


def encode_pair(tokenizer: PreTrainedTokenizerFast, template: Template, row: dict[str, Any]) -> EncodedPair:
    (pair,) = encode_preferences(tokenizer, template, [row])
    assert isinstance(pair, EncodedPair), pair
    return pair


PAIRS: dict[str, dict[str, Any]] = {
    name: {"prompt": messages[:-1], "chosen": messages[-1:], "rejected": answer(" Ei, en tiedä.\n")}
    for name, messages in CHATS.items()
    if messages[-1]["role"] == "assistant" and messages[-2]["role"] == "user"
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
def test_prompt_and_response_are_the_whole_conversation(tokenizers: Tokenizers, name: str, row: dict[str, Any]) -> None:
    tokenizer, template = tokenizers[name], resolve(name, None)
    pair = encode_pair(tokenizer, template, row)
    for response, response_ids in [(row["chosen"], pair.chosen_ids), (row["rejected"], pair.rejected_ids)]:
        whole = encode_one(tokenizer, template, row["prompt"] + response)
        end = len(whole.mask) - whole.mask[::-1].index(1)
        start = end - len(response_ids)
        assert whole.input_ids[start:end] == response_ids
        assert whole.mask[start:end] == [1] * len(response_ids)
        assert not whole.mask[start - 1]
        assert tokenizer.decode(whole.input_ids[:start]) == tokenizer.decode(pair.prompt_ids)
        content = response[0]["content"]
        assert tokenizer.decode(response_ids) == (content if name == "chatml" else content.strip()) + END[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
def test_prompt_ids_are_those_a_server_computes(tokenizers: Tokenizers, name: str, row: dict[str, Any]) -> None:
    tokenizer, template = tokenizers[name], resolve(name, None)
    served = tokenizer.apply_chat_template(
        row["prompt"], chat_template=template.text, add_generation_prompt=True, return_dict=False
    )
    assert encode_pair(tokenizer, template, row).prompt_ids == served


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
def test_pairs_need_no_markers(tokenizers: Tokenizers, name: str, row: dict[str, Any]) -> None:
    marked = encode_pair(tokenizers[name], resolve(name, None), row)
    assert encode_pair(tokenizers[name], unmarked_copy(name), row) == marked


def test_a_batch_of_pairs_is_its_rows_one_by_one(llama_tokenizer: PreTrainedTokenizerFast) -> None:
    template = resolve("llama-3.1", None)
    bad = {"prompt": chat("<|eot_id|>"), "chosen": answer("a"), "rejected": answer("b")}
    rows = [bad, *PAIRS.values(), bad]
    together = encode_preferences(llama_tokenizer, template, rows)
    assert together == [encode_preferences(llama_tokenizer, template, [row])[0] for row in rows]
    assert encode_preferences(llama_tokenizer, template, []) == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": []}, "no messages"),
        ({"chosen": []}, "no messages"),
        ({"chosen": chat("Hi", "Ho")}, "the response is not one assistant turn: user, assistant"),
        ({"rejected": chat("Hi")}, "the response is not one assistant turn: user"),
        ({"rejected": answer("<|eot_id|>")}, "special-token text in content: <|eot_id|>"),
        ({"rejected": [{"role": "assistant", "content": None}]}, "content is not text: turn 0, assistant"),
    ],
)
def test_refused_pairs(llama_tokenizer: PreTrainedTokenizerFast, row: dict[str, Any], reason: str) -> None:
    whole = {"prompt": chat("Hi"), "chosen": answer("a"), "rejected": answer("b"), **row}
    assert encode_preferences(llama_tokenizer, resolve("llama-3.1", None), [whole]) == [Refusal(reason)]


def test_a_template_that_rewrites_the_prompt_is_refused(chatml_tokenizer: PreTrainedTokenizerFast) -> None:
    text = "{{ messages | length }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    row = {"prompt": chat("Hi"), "chosen": answer("a"), "rejected": answer("b")}
    assert encode_preferences(chatml_tokenizer, Template("counting", text, has_markers=False), [row]) == [
        Refusal("the prompt is not a prefix of prompt and response: the template rewrites earlier turns")
    ]


# Tokenizers that put a blank before any text


def test_no_blank_is_slipped_in_between_the_pieces(sentencepiece_tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer, template = sentencepiece_tokenizer, resolve("plain", None)
    row = {"prompt": chat("Where?"), "chosen": answer("The boat"), "rejected": answer("\non")}
    pair = encode_pair(tokenizer, template, row)
    assert tokenizer.convert_ids_to_tokens(pair.chosen_ids) == [*"The▁boat", "</s>"]
    assert tokenizer.convert_ids_to_tokens(pair.rejected_ids) == [*"on", "</s>"]
    encoded = encode_one(tokenizer, template, row["prompt"] + row["chosen"])
    assert encoded.input_ids == pair.prompt_ids + pair.chosen_ids


def test_package_holds_the_templates() -> None:
    assert NAMES == ["chatml", "llama-3.1", "plain"]
    assert all(isinstance(path, Path) and path.is_file() for path in builtin_templates().values())
