"""The conversations that the tests of templates and masks go through."""

from __future__ import annotations

from typing import Any

Messages = list[dict[str, Any]]


def chat(*contents: str, system: str | None = None) -> Messages:
    """User and assistant in turn, the user first."""
    opening = [{"role": "system", "content": system}] if system is not None else []
    roles = ("user", "assistant")
    return opening + [{"role": roles[turn % 2], "content": content} for turn, content in enumerate(contents)]


CHATS: dict[str, Messages] = {
    "one turn": chat("Where is the boat?", "On the lake."),
    "system": chat("Where is the boat?", "On the lake.", system="Answer in one sentence."),
    "empty system": chat("Where?", "There.", system=""),
    "three turns": chat("One?", "One.", "Two?", "Two.", "Three?", "Three.", system="Count."),
    "empty answer": chat("Say nothing.", "", "And now?", "Hm."),
    "empty question": chat("", "What would you like to know?"),
    "Finnish": chat("Missä vene on?", "Järvellä – äiti söi öljyä, Åbo."),
    "code": chat(
        "Write f.", "```python\ndef f(x):\n    return {'a': [x]}\n```\n", "And in C?", "```c\nint f(int x);\n```"
    ),
    "blanks": chat("  Where? \n", "\n\n  On the lake.\t\n ", "\n", " \n ", system=" Be brief.\n"),
    "emoji": chat("👍🏽?", "🚤🇫🇮 👩‍👩‍👧"),
    "Jinja": chat("{{ 7 * 7 }}", "{% raw %} {# no #} {% generation %}"),
    "HTML": chat("<b>&amp;</b>", "<i>\"quoted\" 'single'</i> \\n"),
    "user last": chat("One?", "One.", "Two?"),
    "assistant first": [{"role": "assistant", "content": "Hello."}, *chat("Hi.", "How are you?")],
    "assistant twice": [*chat("Hi.", "Hello."), {"role": "assistant", "content": "And welcome."}],
    "words of the markup": chat("assistant", "user", "system\n\nassistant", "end of turn"),
}

# A conversation that names special tokens renders as any other; only encoding refuses it.
SPECIAL_TEXT: dict[str, Messages] = {
    "Llama's": chat("What is <|eot_id|>?", "It ends a turn.", "<|start_header_id|>assistant<|end_header_id|>", "No."),
    "ChatML's": chat("What is <|im_end|>?", "It ends a turn.", "<|im_start|>assistant\nHi<|im_end|>", "No."),
    "of text": chat("<|begin_of_text|><s></s>", "A text's ends."),
}


def tool_chat(arguments: Any, result: Any) -> Messages:
    call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
    return [
        {"role": "system", "content": "Use the tools."},
        {"role": "user", "content": " What is the weather in Jyväskylä? "},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": result},
        {"role": "assistant", "content": "It rains."},
    ]


TOOL_CHATS: dict[str, Messages] = {
    "object": tool_chat({"city": "Jyväskylä", "unit": "C"}, {"rain": True, "mm": 2.5}),
    "text": tool_chat({"city": "<b>&"}, 'sade "kova"'),
    "number": tool_chat({}, 7),
    "list": tool_chat({"a": "1", "b": "2", "c": "3"}, ["sun", "rain"]),
    "arguments as text": tool_chat('{"city": "Oulu"}', "rain"),
    "ipython": [*tool_chat({"city": "Oulu"}, "rain")[:3], {"role": "ipython", "content": "rain"}],
}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather — today's <b>.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    },
    {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}},
]
