"""The text before a user's turn, from a chat template: what an instruct model continues with an instruction of its own.

The method is Magpie's (arXiv 2406.08464): an aligned model that is given its template up to where the user's text would
begin writes a user's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from posttrain.data.generate.encoding import bos_fault, chat_template, wants_bos
from posttrain.data.rows import Message
from posttrain.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from posttrain.chat import Template

# A user's text that no template writes by itself; its inside is what a template might escape, trim or interpret.
_SENTINEL = 'Qx7<b> & "it\'s" {{ x }}\n\n  näin\tQx8'
_ANSWER = "Qx9"
_TRIAL = "What is a lake?"  # some instruction, to see how tokens fall where it begins
_MOST_MARKS = 2  # tokens that end a user's turn: the end of the turn, and the beginning of the next


@dataclass(frozen=True)
class Prefix:
    """What stands before a user's text, and what comes after it.

    Attributes:
        stop: Where an instruction ends: the tokens that end a user's turn and open the assistant's, and the
            tokenizer's EOS; or the text between the turns, where no token is.
        default_system: What the template says by itself before the first turn where the conversation has no system
            prompt, special tokens left out; None where it says nothing.
        system: The system prompt, or None.
    """

    stop: tuple[str, ...]
    default_system: str | None
    system: str | None
    _key: str = field(repr=False)
    _template: Template = field(repr=False)
    _tokenizer: PreTrainedTokenizerBase = field(repr=False)
    _wants_bos: bool = field(repr=False)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, system: str | None, key: str = "teacher") -> Prefix:
        """Derive the prefix from a tokenizer's own chat template.

        Args:
            tokenizer: The teacher's; no weights are needed.
            system: A system prompt for every conversation, or None.
            key: What the tokenizer belongs to, for messages.

        Raises:
            UserError: There is no template, it refuses such a conversation, it does not write the user's text or the
                system prompt as they are, or the prefix does not open with exactly one BOS where it should.
        """
        template = chat_template(tokenizer, key)
        with _naming(key):
            wanted = wants_bos(tokenizer, template)
            stop = _stop(tokenizer, template, system)
            default = _default_system(tokenizer, template) if system is None else None
            prefix = cls(stop, default, system, key, template, tokenizer, wanted)
            if system is not None and system.strip() not in prefix._before([]):
                raise UserError("it does not write out the system prompt as it is.")
            prefix._before([{"role": "user", "content": _TRIAL}, {"role": "assistant", "content": _ANSWER}])
        return prefix

    def before(self, messages: Sequence[Message]) -> str:
        """Return the text up to where the user's next text would begin, all special tokens written out.

        Args:
            messages: The turns so far, without the system prompt: none, or some that end with the assistant's.

        Raises:
            UserError: The template refuses the conversation, or what it writes does not open with exactly one BOS.
        """
        with _naming(self._key):
            return self._before(messages)

    def _before(self, messages: Sequence[Message]) -> str:
        text, _ = _around(self._tokenizer, self._template, _with_system(self.system, messages))
        text = self._without_blank(text)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if fault := bos_fault(ids, self._tokenizer, self._wants_bos):
            raise UserError(f"what it writes before a user's text begins wrongly, {fault}; correct the template.")
        return text

    def _without_blank(self, text: str) -> str:
        """Leave out blanks at the end that belong to the first word's token, as in `[INST] `."""
        bare = text.rstrip(" ")
        if bare == text:
            return text
        whole: list[int] = self._tokenizer(text + _TRIAL, add_special_tokens=False)["input_ids"]
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return text if whole[: len(ids)] == ids else bare


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Say in errors whose chat template it is that they are about."""
    try:
        yield
    except UserError as error:
        problems = [problem.removeprefix("model.chat_template: ") for problem in error.problems]
        raise UserError([f"{key}: chat template: {problem}" for problem in problems]) from error


def _with_system(system: str | None, messages: Sequence[Message]) -> list[Message]:
    return [*([{"role": "system", "content": system}] if system is not None else []), *messages]


def _render(tokenizer: PreTrainedTokenizerBase, template: Template, messages: Sequence[Message]) -> str:
    from posttrain.chat import TemplateRefusal, render

    try:
        return render(template.text, messages, tokenizer.special_tokens_map).text
    except TemplateRefusal as error:
        kind = "a conversation with a system prompt" if messages[0]["role"] == "system" else "a conversation"
        raise UserError(f"it refuses {kind}: {error}.") from error


def _around(
    tokenizer: PreTrainedTokenizerBase, template: Template, messages: list[Message], answer: bool = False
) -> tuple[str, str]:
    """Return what a template writes before a further user turn and after its text, up to the answer if there is one."""
    turns = [*messages, {"role": "user", "content": _SENTINEL}]
    if answer:
        turns.append({"role": "assistant", "content": _ANSWER})
    text = _render(tokenizer, template, turns)
    if text.count(_SENTINEL) != 1:
        raise UserError("it does not write out a user's text as it is, and once.")
    before, _, after = text.partition(_SENTINEL)
    if not answer:
        return before, after
    if _ANSWER not in after:
        raise UserError("it does not write out the assistant's text after the user's.")
    return before, after[: after.rindex(_ANSWER)]


def _stop(tokenizer: PreTrainedTokenizerBase, template: Template, system: str | None) -> tuple[str, ...]:
    # The text of a turn alone may end with nothing, where a template closes it together with opening the next.
    _, between = _around(tokenizer, template, _with_system(system, []), answer=True)
    added = _added_tokens(tokenizer)
    marks = list(dict.fromkeys(added.findall(between)))[:_MOST_MARKS]
    leading = added.split(between, maxsplit=1)[0]
    if not marks or leading.strip():
        # Blanks around text are left out, for a model may write them as part of its last word; newlines mean something.
        text = leading.strip(" ").rstrip()
        marks = [text or leading, *marks]
    stops = dict.fromkeys([*marks, tokenizer.eos_token])
    return tuple(stop for stop in stops if stop)


def _default_system(tokenizer: PreTrainedTokenizerBase, template: Template) -> str | None:
    """Return what only the first user turn has before it, but for special tokens."""
    first, _ = _around(tokenizer, template, [])
    turns = [{"role": "user", "content": _TRIAL}, {"role": "assistant", "content": _ANSWER}]
    second, _ = _around(tokenizer, template, turns)
    opening = second[second.rindex(_ANSWER) + len(_ANSWER) :]
    shared = next((n for n in range(min(len(first), len(opening)), 0, -1) if first[-n:] == opening[-n:]), 0)
    cut = len(first) - shared
    added = _added_tokens(tokenizer)
    # Two different tokens may end alike; the cut is to be beside a token, not in it.
    cut = next((token.end() for token in added.finditer(first) if token.start() < cut < token.end()), cut)
    said = [text.strip() for text in added.split(first[:cut])]
    said = [text for text in said if text]
    return None if said == ["system"] else " ".join(said) or None  # a block with its role's name alone says nothing


def _added_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    added = sorted(filter(None, tokenizer.get_added_vocab()), key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, added)) or "(?!)")
