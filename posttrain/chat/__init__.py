"""Chat templates: which one, what it renders, the token ids and the loss mask, and the checks on all of these."""

from __future__ import annotations

from posttrain.chat.checks import check_tokenizer, choose_pad_token
from posttrain.chat.encode import (
    Encoded,
    EncodedPair,
    Encoder,
    Refusal,
    Stretch,
    encode_chats,
    encode_preferences,
)
from posttrain.chat.render import Rendered, TemplateRefusal, render
from posttrain.chat.template import Template, builtin_templates, end_of_turn_id, require_markers, resolve

__all__ = [
    "Encoded",
    "EncodedPair",
    "Encoder",
    "Refusal",
    "Rendered",
    "Stretch",
    "Template",
    "TemplateRefusal",
    "builtin_templates",
    "check_tokenizer",
    "choose_pad_token",
    "encode_chats",
    "encode_preferences",
    "end_of_turn_id",
    "render",
    "require_markers",
    "resolve",
]
