"""What a conversation must be before a template sees it: text in every turn, and no special token written out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from posttrain.chat.render import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def special_token_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Return what finds any special token written out as text: a tokenizer would make the token of it."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    special.update(tokenizer.all_special_tokens)
    longest_first = sorted(filter(None, special), key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def fault_in(messages: Sequence[Message], special_text: re.Pattern[str]) -> str | None:
    """Return what makes messages unfit to encode, or None. What stands before the colon is a fixed text.

    Args:
        messages: The turns of one conversation.
        special_text: From `special_token_pattern`.
    """
    if not messages:
        return "no messages"
    for turn, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            return f"malformed message: turn {turn} has no role"
        if not _is_content(message):
            return f"content is not text: turn {turn}, {message['role']}"
        for text in _strings(message):
            if found := special_text.search(text):
                return f"special-token text in content: {found.group()}"
    return None


def _is_content(message: Message) -> bool:
    """Say whether a template has something to write; of null, Llama's makes the word None."""
    content = message.get("content")
    if message.get("tool_calls"):
        return content is None or isinstance(content, str)
    if message["role"] in ("tool", "ipython"):
        return content is not None  # any JSON value may be a function's result
    return isinstance(content, str)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
