"""A conversation through a chat template: the text, and where in it the assistant's turns are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

# A template that asks for today's date is given this one, so that the same rows make the same tokens on any day. It is
# the date that Llama 3.1's template falls back to.
_FIXED_DATE = {"%d": "26", "%-d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday"}

Message = Mapping[str, Any]


class TemplateRefusal(Exception):
    """A template raised on a conversation; the text says why."""


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation. `spans` are the (start, end) characters of its generation blocks, in order, none empty;
    there are none where the template has no generation markers."""

    text: str
    spans: tuple[tuple[int, int], ...]


@lru_cache(maxsize=64)
def has_generation_markers(text: str) -> bool:
    """Say whether a template's text has a `{% generation %}` block outside its comments."""
    return re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL)) is not None


def render(
    text: str,
    messages: Sequence[Message],
    special_tokens: Mapping[str, Any],
    *,
    add_generation_prompt: bool = False,
    tools: list[dict[str, Any]] | None = None,
    **variables: Any,
) -> Rendered:
    """Render a conversation with the Jinja environment that inference servers use, that of transformers.

    Not safe in threads of one process: transformers keeps one tracker of generation blocks for each template.

    Args:
        text: The template.
        messages: The turns. Keys that are null, as Arrow fills them in, are left out, except `role` and `content`.
        special_tokens: `bos_token`, `eos_token` and so on, as in a tokenizer's `special_tokens_map`.
        add_generation_prompt: Whether to end with the opening of an assistant turn.
        tools: JSON schemas of the functions the assistant may call.
        variables: Further variables of the template, such as `date_string`.

    Raises:
        TemplateRefusal: The template raised, or the messages have a form that it cannot render.
        jinja2.TemplateSyntaxError: The template is not valid Jinja.
    """
    from jinja2 import TemplateError, TemplateSyntaxError
    from transformers.utils.chat_template_utils import render_jinja_template

    marked = has_generation_markers(text)
    turns = [{k: v for k, v in turn.items() if v is not None or k in ("role", "content")} for turn in messages]
    try:
        rendered, spans = render_jinja_template(
            conversations=[turns],
            tools=tools,
            chat_template=_with_fixed_date(text),
            return_assistant_tokens_mask=marked,
            add_generation_prompt=add_generation_prompt,
            **{**special_tokens, **variables},
        )
    except TemplateSyntaxError:
        raise
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise TemplateRefusal(str(error) or type(error).__name__) from error
    return Rendered(rendered[0], tuple((start, end) for start, end in spans[0] if start < end) if marked else ())


@lru_cache(maxsize=64)
def _with_fixed_date(text: str) -> str:
    """Shadow `strftime_now`, which transformers gives to every template, by a macro that knows one date."""
    if "strftime_now" not in text:
        return text
    replaced = "".join(f" | replace('{directive}', '{value}')" for directive, value in _FIXED_DATE.items())
    # The empty expression keeps `trim_blocks` from eating a newline that the template begins with.
    return "{% macro strftime_now(format) %}{{ format" + replaced + " }}{% endmacro %}{{ '' }}" + text
