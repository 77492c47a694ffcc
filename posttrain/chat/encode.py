"""Conversations to token ids, with the loss mask built beside them.

The rendered text is cut where the assistant's text begins and ends, and each piece is tokenised by itself. So no token
straddles what is trained and what is not, the ids of a prompt are a prefix of those of prompt and response, and they
are the ids that a server computes for the prompt alone. All pieces of a call go through the tokenizer at once, which
lets a fast tokenizer use its threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posttrain.chat.messages import fault_in, special_token_pattern
from posttrain.chat.render import Message, Rendered, TemplateRefusal, render
from posttrain.chat.template import Template, emits_bos, require_markers, turn_end
from posttrain.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Text on which a tokenizer class that adds something to the fast tokenizer inside it would show it.
_PROBES = ("\n", "\na", "a", " Hei, maailma! \n\n1 + 1 = 2\t👋🏽 <b>")


@dataclass(frozen=True)
class Encoded:
    """One conversation: token ids, and 1 for each that is trained, 0 for the others. The two are equally long."""

    input_ids: list[int]
    mask: list[int]


@dataclass(frozen=True)
class EncodedPair:
    """One preference pair as token ids. The prompt ends where the assistant's text would begin; each response ends with
    the end-of-turn token, and every token of it is trained."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


@dataclass(frozen=True)
class Refusal:
    """Why a row is not encoded. What stands before the first colon is one of a few fixed texts, to count by."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """The ids of one piece of a conversation, all of them trained or none."""

    ids: list[int]
    trained: bool


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of rendered text that is tokenised by itself. `opens` says that it is the beginning of a text."""

    text: str
    trained: bool
    opens: bool


class _Refused(Exception):
    """Carries a reason out of the checks of one row."""


def encode_chats(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    conversations: Sequence[Sequence[Message]],
    loss_on: str,
) -> list[Encoded | Refusal]:
    """Encode conversations for supervised fine-tuning; see `Encoder.chats`."""
    return [
        result
        if isinstance(result, Refusal)
        else Encoded(
            [token for stretch in result for token in stretch.ids],
            [int(stretch.trained) for stretch in result for _ in stretch.ids],
        )
        for result in Encoder(tokenizer, template).chats(conversations, loss_on)
    ]


def encode_preferences(
    tokenizer: PreTrainedTokenizerBase, template: Template, rows: Sequence[Mapping[str, Any]]
) -> list[EncodedPair | Refusal]:
    """Encode preference pairs for direct preference optimisation; see `Encoder.pairs`."""
    return Encoder(tokenizer, template).pairs(rows)


class Encoder:
    """A tokenizer and a template together, with what is derived from the two once.

    It keeps the fast tokenizer alone, not the object of transformers around it, whose bookkeeping costs half as much
    again as the tokens; so it is also small enough to be sent to other processes.

    Args:
        tokenizer: A fast one. Nothing but the template adds special tokens.
        template: The chat template.

    Raises:
        UserError: The template cannot render a plain exchange, or the tokenizer is not what its fast part does.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template) -> None:
        self.template = template
        self._special_tokens = dict(tokenizer.special_tokens_map)
        self._special_text = special_token_pattern(tokenizer)
        self._after_turn = turn_end(tokenizer, template)[1]
        self._bos_id = tokenizer.bos_token_id if emits_bos(tokenizer, template) else None
        whole = tokenizer(list(_PROBES), add_special_tokens=False)["input_ids"]
        self._fast = tokenizer.backend_tokenizer
        self._fast.no_truncation()
        self._fast.no_padding()
        if self._ids(_PROBES) != whole:
            raise UserError(
                f"the tokenizer class {type(tokenizer).__name__} changes what its tokenizer.json does, which cannot be "
                "followed; save it as a plain fast tokenizer, and name that as model.tokenizer"
            )
        newline, joined, letter, _ = whole
        # SentencePiece tokenizers put a space before whatever text they are given, which is wrong for a piece from the
        # middle. Those pieces are tokenised after a newline, whose ids are then taken off.
        self._lead = newline if newline and joined != newline + letter and joined[: len(newline)] == newline else []

    def chats(self, conversations: Iterable[Sequence[Message]], loss_on: str) -> list[list[Stretch] | Refusal]:
        """Encode conversations for supervised fine-tuning.

        Args:
            conversations: The messages of each row.
            loss_on: `assistant` trains what stands between the template's generation markers; `all` every token.

        Returns:
            One result a conversation, in order: its stretches, none empty. Reasons for a refusal: `no messages`,
            `malformed message`, `content is not text`, `no assistant turn`, `special-token text in content`, `the
            template refused the conversation`, `nothing to train on`, `not exactly one BOS`.

        Raises:
            UserError: The template has no markers, and `loss_on` needs them.
        """
        require_markers(self.template, loss_on)
        cut: list[list[_Piece] | Refusal] = []
        for messages in conversations:
            try:
                cut.append(self._cut_chat(messages, loss_on))
            except _Refused as refused:
                cut.append(Refusal(str(refused)))
        ids = self._tokenise(piece for pieces in cut if not isinstance(pieces, Refusal) for piece in pieces)

        results: list[list[Stretch] | Refusal] = []
        for pieces in cut:
            if isinstance(pieces, Refusal):
                results.append(pieces)
                continue
            stretches = [Stretch(next(ids), piece.trained) for piece in pieces]
            results.append(self._bos_refusal(*(stretch.ids for stretch in stretches)) or stretches)
        return results

    def pairs(self, rows: Iterable[Mapping[str, Any]]) -> list[EncodedPair | Refusal]:
        """Encode preference pairs for direct preference optimisation.

        The prompt is rendered once, up to where the assistant's text begins. A response is what rendering the prompt
        with the response adds to that, up to and with the end-of-turn token: it never opens with a BOS or a system
        block of its own. Templates without generation markers serve as well.

        Args:
            rows: Each with `prompt` (messages), `chosen` and `rejected` (one assistant message each, in a list).

        Returns:
            One result a row, in order. Reasons for a refusal, besides those of `chats`: `the response is not one
            assistant turn`, `the prompt is not a prefix of prompt and response`.
        """
        cut: list[list[_Piece] | Refusal] = []
        for row in rows:
            try:
                cut.append(self._cut_pair(row))
            except _Refused as refused:
                cut.append(Refusal(str(refused)))
        ids = self._tokenise(piece for pieces in cut if not isinstance(pieces, Refusal) for piece in pieces)

        results: list[EncodedPair | Refusal] = []
        for pieces in cut:
            if isinstance(pieces, Refusal):
                results.append(pieces)
                continue
            prompt, chosen, rejected = next(ids), next(ids), next(ids)
            # A response holds no special token but the template's end of turn, so the prompt's BOS is the only one.
            results.append(self._bos_refusal(prompt) or EncodedPair(prompt, chosen, rejected))
        return results

    def _cut_chat(self, messages: Sequence[Message], loss_on: str) -> list[_Piece]:
        self._check_messages(messages)
        if not any(message["role"] == "assistant" for message in messages):
            raise _Refused("no assistant turn")
        rendered = self._render(messages)
        pieces: list[_Piece] = []
        at = 0
        for start, end in rendered.spans:
            pieces.append(_Piece(rendered.text[at:start], loss_on == "all", at == 0))
            pieces.append(_Piece(rendered.text[start:end], True, start == 0))
            at = end
        pieces.append(_Piece(rendered.text[at:], loss_on == "all", at == 0))
        pieces = [piece for piece in pieces if piece.text]
        if not any(piece.trained for piece in pieces):
            raise _Refused("nothing to train on")
        return pieces

    def _cut_pair(self, row: Mapping[str, Any]) -> list[_Piece]:
        prompt = row["prompt"]
        self._check_messages(prompt)
        opened = self._render(prompt, add_generation_prompt=True).text
        responses = [self._response(prompt, opened, row[side]) for side in ("chosen", "rejected")]
        return [_Piece(opened, False, True), *(_Piece(text, True, not opened) for text in responses)]

    def _response(self, prompt: Sequence[Message], opened: str, response: Sequence[Message]) -> str:
        self._check_messages(response)
        if len(response) != 1 or response[0]["role"] != "assistant":
            roles = ", ".join(message["role"] for message in response)
            raise _Refused(f"the response is not one assistant turn: {roles}")
        whole = self._render([*prompt, *response])
        if not whole.text.startswith(opened):
            raise _Refused("the prompt is not a prefix of prompt and response: the template rewrites earlier turns")
        if self.template.has_markers:
            end = whole.spans[-1][1] if whole.spans else 0
            if end <= len(opened):
                raise _Refused("nothing to train on")
            return whole.text[len(opened) : end]
        return whole.text[len(opened) :].removesuffix(self._after_turn)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._fast.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _tokenise(self, pieces: Iterable[_Piece]) -> Iterator[list[int]]:
        """Return the ids of each piece, in order, from one call of the tokenizer."""
        stretches = list(pieces)
        if not self._lead:
            return iter(self._ids([piece.text for piece in stretches]))
        ids = self._ids([piece.text if piece.opens else f"\n{piece.text}" for piece in stretches])
        return iter(
            [own if piece.opens else self._without_lead(piece, own) for piece, own in zip(stretches, ids, strict=True)]
        )

    def _without_lead(self, piece: _Piece, ids: list[int]) -> list[int]:
        if ids[: len(self._lead)] == self._lead:
            return ids[len(self._lead) :]
        # The newline went into one token with the piece's own beginning.
        return self._ids([piece.text])[0]

    def _bos_refusal(self, *stretches: list[int]) -> Refusal | None:
        if self._bos_id is None or (count := sum(ids.count(self._bos_id) for ids in stretches)) == 1:
            return None
        return Refusal(f"not exactly one BOS: {count}")

    def _check_messages(self, messages: Sequence[Message]) -> None:
        if fault := fault_in(messages, self._special_text):
            raise _Refused(fault)

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> Rendered:
        try:
            return render(
                self.template.text, messages, self._special_tokens, add_generation_prompt=add_generation_prompt
            )
        except TemplateRefusal as error:
            raise _Refused(f"the template refused the conversation: {error}") from error
