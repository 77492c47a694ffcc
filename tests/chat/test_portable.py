"""A template without its markers renders as before."""

from __future__ import annotations

import pytest

from posttrain.chat import builtin_templates, render
from posttrain.chat.portable import portable

CHATS = (
    [{"role": "user", "content": "Hei"}, {"role": "assistant", "content": "  Moi!\n"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": ""},
    ],
)


@pytest.mark.parametrize("name", sorted(builtin_templates()))
@pytest.mark.parametrize("chat", CHATS)
def test_markers_leave_no_trace(name: str, chat: list[dict[str, str]]) -> None:
    text = builtin_templates()[name].read_text(encoding="utf-8")
    plain = portable(text)
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    assert "generation" in plain
    assert "{% generation" not in plain
    assert render(plain, chat, tokens).text == render(text, chat, tokens).text
    assert render(text, chat, tokens).spans
    assert not render(plain, chat, tokens).spans
