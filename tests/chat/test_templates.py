"""The built-in templates render byte for byte as the originals they stand in for."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import trl

from posttrain.chat import TemplateRefusal, builtin_templates, render
from tests.chat.conversations import CHATS, SPECIAL_TEXT, TOOL_CHATS, TOOLS, Messages

STOCK = (Path(trl.__file__).parent / "chat_templates" / "llama3_1.jinja").read_text(encoding="utf-8")
OURS = {name: path.read_text(encoding="utf-8") for name, path in builtin_templates().items()}
LLAMA = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
ALL_CHATS = {**CHATS, **SPECIAL_TEXT}


def outcome(text: str, messages: Messages, **variables: Any) -> str | None:
    """The rendering, or None where the template refuses."""
    try:
        return render(text, messages, LLAMA, **variables).text
    except TemplateRefusal:
        return None


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "opened"])
@pytest.mark.parametrize("messages", ALL_CHATS.values(), ids=ALL_CHATS)
def test_llama_renders_as_the_stock_template(messages: Messages, opened: bool) -> None:
    stock = outcome(STOCK, messages, add_generation_prompt=opened)
    assert stock is not None
    assert outcome(OURS["llama-3.1"], messages, add_generation_prompt=opened) == stock


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"date_string": "1 Jan 2026"},
        {"tools": TOOLS},
        {"tools": TOOLS, "tools_in_user_message": False},
        {"tools": TOOLS, "tools_in_user_message": True, "date_string": "x"},
        {"tools": []},
        {"custom_tools": TOOLS[:1]},
        {"tools": TOOLS, "custom_tools": TOOLS[:1], "tools_in_user_message": False},
        {"builtin_tools": ["code_interpreter", "brave_search", "wolfram_alpha"]},
        {"builtin_tools": ["weather"]},
        {"builtin_tools": ["weather"], "tools": TOOLS},
        {"builtin_tools": []},
    ],
    ids=lambda variables: ",".join(variables) or "none",
)
@pytest.mark.parametrize("name", [*TOOL_CHATS, "one turn", "system"])
def test_llama_renders_tools_as_the_stock_template(name: str, variables: dict[str, Any]) -> None:
    messages = TOOL_CHATS.get(name) or CHATS[name]
    stock = outcome(STOCK, messages, **variables)
    assert outcome(OURS["llama-3.1"], messages, **variables) == stock
    # A built-in function called with arguments that are one text is the only case the stock template refuses here.
    assert (stock is None) == (name == "arguments as text" and "weather" in variables.get("builtin_tools", []))


@pytest.mark.parametrize(
    ("messages", "variables"),
    [
        ([], {}),
        ([{"role": "system", "content": "Alone."}], {"tools": TOOLS}),
        ([{"role": "assistant", "tool_calls": []}], {}),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}] * 2}], {}),
    ],
    ids=["no messages", "no user turn for the tools", "no call", "two calls"],
)
def test_llama_refuses_what_the_stock_template_refuses(messages: Messages, variables: dict[str, Any]) -> None:
    assert outcome(STOCK, messages, **variables) is None
    assert outcome(OURS["llama-3.1"], messages, **variables) is None


def test_llama_marks_calls_and_what_ends_them() -> None:
    messages = TOOL_CHATS["object"]
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, '{"name": "weather", "parameters": {"city": "Jyväskylä", "unit": "C"}}<|eot_id|>'),
        ({"builtin_tools": ["weather"]}, '<|python_tag|>weather.call(city="Jyväskylä", unit="C")<|eom_id|>'),
    ]
    for variables, call in cases:
        rendered = render(OURS["llama-3.1"], messages, LLAMA, **variables)
        assert [rendered.text[start:end] for start, end in rendered.spans] == [call, "It rains.<|eot_id|>"]


def reference_chatml(messages: Messages, opened: bool) -> str:
    turns = [f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages]
    return "".join(turns) + ("<|im_start|>assistant\n" if opened else "")


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "opened"])
@pytest.mark.parametrize("messages", ALL_CHATS.values(), ids=ALL_CHATS)
def test_chatml_adds_nothing_to_the_turns(messages: Messages, opened: bool) -> None:
    assert outcome(OURS["chatml"], messages, add_generation_prompt=opened) == reference_chatml(messages, opened)


def test_chatml_renders_as_smollm2_where_there_is_a_system_message() -> None:
    folder = Path(os.environ.get("POSTTRAIN_SMOLLM2", ""))
    if not os.environ.get("POSTTRAIN_SMOLLM2") or not (folder / "chat_template.jinja").is_file():
        pytest.skip("POSTTRAIN_SMOLLM2 names no folder with SmolLM2's chat template")
    original = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    with_system = [messages for messages in ALL_CHATS.values() if messages[0]["role"] == "system"]
    assert len(with_system) > 3
    for messages, opened in itertools.product(with_system, [False, True]):
        theirs = outcome(original, messages, add_generation_prompt=opened)
        assert outcome(OURS["chatml"], messages, add_generation_prompt=opened) == theirs


def test_plain_is_the_contents_with_the_end_of_each_answer() -> None:
    special_tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    rendered = render(OURS["plain"], CHATS["three turns"], special_tokens)
    assert rendered.text == "<s>Count.\n\nOne?\n\nOne.</s>\n\nTwo?\n\nTwo.</s>\n\nThree?\n\nThree.</s>"
    assert (
        render(OURS["plain"], CHATS["one turn"], {"eos_token": "</s>"}).text == "Where is the boat?\n\nOn the lake.</s>"
    )


@pytest.mark.parametrize("name", ["chatml", "plain"])
def test_templates_without_a_form_for_tools_say_so(name: str) -> None:
    with pytest.raises(TemplateRefusal, match=f"{name} template has no form for tool calls"):
        render(OURS[name], TOOL_CHATS["text"], LLAMA)
    with pytest.raises(TemplateRefusal, match=f"{name} template has no form for tools"):
        render(OURS[name], CHATS["one turn"], LLAMA, tools=TOOLS)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("messages", CHATS.values(), ids=CHATS)
def test_prompt_is_a_prefix_of_prompt_and_response(name: str, messages: Messages) -> None:
    turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant" and turn]
    for turn in turns:
        prompt = render(OURS[name], messages[:turn], LLAMA, add_generation_prompt=True).text
        whole = render(OURS[name], messages[: turn + 1], LLAMA)
        assert whole.text.startswith(prompt)
        assert whole.spans[-1][0] == len(prompt)


def test_a_template_that_asks_for_today_gets_a_fixed_date() -> None:
    text = "\n{{ strftime_now('%d %b %Y') }}|{% if strftime_now is defined %}{{ strftime_now('%Y-%m-%d') }}{% endif %}"
    assert render(text, CHATS["one turn"], {}).text == "\n26 Jul 2024|2024-07-26"
