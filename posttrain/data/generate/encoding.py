"""Conversations and texts to token ids for a model in this process, with exactly one BOS where there has to be one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from posttrain.data.generate.requests import Failed
from posttrain.data.rows import Message
from posttrain.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from posttrain.chat import Template


class Encoding:
    """A tokenizer with its own chat template.

    Args:
        tokenizer: A fast one; set here never to truncate or pad, so that several threads may use it.
        where: What it belongs to, for messages.

    Attributes:
        tokenizer: The tokenizer.
        template: Its chat template, None where it has none.

    Raises:
        UserError: The chat template is not valid, or refuses a plain exchange.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.template = chat_template(tokenizer, where) if tokenizer.chat_template else None
        self._where = where
        self._wants_bos = wants_bos(tokenizer, self.template)

    def conversation(self, messages: Sequence[Message], *, opened: bool) -> list[int]:
        """Return the ids of a conversation through the template. Not safe in two threads at once, as `chat.render`.

        Args:
            messages: The turns.
            opened: Whether to end with the opening of an assistant turn.

        Raises:
            Failed: The template refuses it, or it does not open with exactly one BOS.
            UserError: There is no template.
        """
        from posttrain.chat import TemplateRefusal, render

        template = self.template or chat_template(self.tokenizer, self._where)
        special = self.tokenizer.special_tokens_map
        try:
            text = render(template.text, messages, special, add_generation_prompt=opened).text
        except TemplateRefusal as error:
            raise Failed(f"the chat template refuses the conversation: {error}") from error
        return self.text(text)

    def text(self, text: str) -> list[int]:
        """Return the ids of a text in which all special tokens are written out.

        Raises:
            Failed: It is empty, or does not open with exactly one BOS where the model is used to one.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise Failed("empty prompt")
        if fault := bos_fault(ids, self.tokenizer, self._wants_bos):
            raise Failed(fault)
        return ids


def chat_template(tokenizer: PreTrainedTokenizerBase, where: str) -> Template:
    """Return a tokenizer's own chat template.

    Args:
        tokenizer: The tokenizer.
        where: What it belongs to, for the message.

    Raises:
        UserError: It has none, or one that is not valid Jinja.
    """
    from posttrain.chat import resolve

    own = tokenizer.chat_template
    if not (own.get("default") if isinstance(own, dict) else own):
        raise UserError(f"{where}: the tokenizer has no chat template, so it is not that of a chat model.")
    try:
        return replace(resolve("tokenizer", tokenizer), name="it")  # as messages call it, after "chat template: "
    except UserError as error:
        problems = [problem.removeprefix("model.chat_template: ") for problem in error.problems]
        raise UserError([f"{where}: chat template: {problem}" for problem in problems]) from error


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Say whether a tokenizer puts its BOS before any text unless told not to."""
    if tokenizer.bos_token_id is None:
        return False
    ids: list[int] = tokenizer("a")["input_ids"]
    return ids[:1] == [tokenizer.bos_token_id]


def wants_bos(tokenizer: PreTrainedTokenizerBase, template: Template | None) -> bool:
    """Say whether a text for the model opens with a BOS: the tokenizer puts one there, or the chat template does."""
    from posttrain.chat.template import emits_bos

    return adds_bos(tokenizer) or (template is not None and emits_bos(tokenizer, template))


def bos_fault(ids: list[int], tokenizer: PreTrainedTokenizerBase, wanted: bool) -> str | None:
    """Return what is wrong with how a text begins, or None.

    Args:
        ids: The text's tokens, with none added by the tokenizer.
        tokenizer: Its tokenizer.
        wanted: Whether there must be a BOS, by `wants_bos`. Elsewhere one is let be: it may be the token that opens a
            turn, as `<|im_start|>` is in some tokenizers.
    """
    bos = tokenizer.bos_token_id
    if bos is None:
        return None
    if ids[:2] == [bos, bos]:
        return f"two BOS: the text opens with {tokenizer.bos_token} twice"
    if wanted and ids[:1] != [bos]:
        return f"no BOS: the text does not open with {tokenizer.bos_token}"
    return None
