"""`magpie`: a teacher writes the instructions itself, from its bare chat template, and answers them.

The method is that of Xu et al. 2024 (arXiv:2406.08464). An aligned model that is given its template up to where a
user's text would begin writes an instruction; a system prompt in that prefix steers which kind. As in the paper, that
prompt is neither in the request for the answer nor in the row: it says what users ask, not how to answer, and a model
that saw it in training would learn to expect it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Protocol

from posttrain.data.generate.categories import categories_of, problems, prompts_language, quotas, schedule
from posttrain.data.generate.instruction_tags import TAGS, tags
from posttrain.data.generate.prompts import prompt
from posttrain.data.generate.requests import LENGTH, Answer, Asker, Failed, Request, seed_for
from posttrain.data.generate.rollouts.answers import broken_off, unfit
from posttrain.data.generate.rollouts.rate import prompt_language
from posttrain.data.generate.rows import InputRow, Outcome, Rollout
from posttrain.data.rows import BadRow, Message, SftRow, turn
from posttrain.data.steps.base import Rejected
from posttrain.data.steps.markup import Markup
from posttrain.errors import UserError
from posttrain.recipe.schema_data import MarkupFilter
from posttrain.recipe.schema_generate import Category, MagpieRollout, Sampling

FOLLOW_UP = "follow-up"  # the system prompt under which user turns after the first are written


class PrefixLike(Protocol):
    """What stands before a user's text; see `posttrain.data.generate.prefix.Prefix`."""

    @property
    def stop(self) -> Sequence[str]:
        """Where an instruction ends."""

    def before(self, messages: Sequence[Message]) -> str:
        """Return the text up to where the user's next text would begin."""


def magpie(options: MagpieRollout, seed: int, prefix_for: Callable[[str | None], PrefixLike]) -> Rollout:
    """Return the rollout of a `magpie` entry.

    A row is a conversation of exactly `turns` user turns, each answered, or fails: one that ended early would be
    another kind of row than the recipe asks for. An instruction is cut at what ends a user's turn, and fails its row
    if it is empty, reached `max_tokens` (`keep_truncated` speaks of answers alone), repeats an earlier one, or holds
    tokens of a chat template; so does an answer that is empty, broken off or holds such tokens.

    The metadata get the `category` that steered the first instruction, `finish_reason` (`length` where any answer was
    truncated), tokens, and with `tag` the judge's `difficulty`, `input_quality` and `task_category`, or their names
    under `untagged`; `prompt_language` where it was asked in another language than the row's.

    Args:
        options: The entry, in which `problems_of_magpie` finds nothing.
        seed: The recipe's.
        prefix_for: From a system prompt, or None, to the teacher's prefix with it.

    Raises:
        UserError: The template cannot carry the system prompts.
    """
    categories = categories_of(options)
    turns_of = schedule(quotas([category.weight for category in categories], options.rows))
    prefixes = cache(prefix_for)
    for place in sorted(set(turns_of)):  # a template that refuses them should do so before anything is asked
        for number in range(min(2, options.turns)):
            prefixes(_system(options, categories[place], number))

    async def rollout(row: InputRow, asker: Asker) -> Outcome:
        category = categories[turns_of[row.number]]
        conversation = _Conversation(options, seed, row, asker, category)
        try:
            for number in range(options.turns):
                await conversation.instruct(prefixes(_system(options, category, number)), number)
                await conversation.answer(number)
        except Failed as failed:
            return Outcome(meta=conversation.meta(), failed=_at(failed.reason, number, options.turns))
        meta = conversation.meta()
        if options.tag:
            language = prompts_language(options)
            meta |= await tags(asker, conversation.messages[0]["content"], language, seed, row.id)
            meta |= prompt_language([tag.prompt for tag in TAGS], language)
        # What a category of the recipe's own asks for is in a language that only the recipe knows.
        known = options.language is not None or not options.categories
        language_written = prompts_language(options) if known else None
        return Outcome(messages=conversation.messages, language=language_written, meta=meta)

    return rollout


@dataclass
class _Conversation:
    """One row being written."""

    options: MagpieRollout
    seed: int
    row: InputRow
    asker: Asker
    category: Category
    messages: list[Message] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)  # to every request, instructions too
    reasons: list[str] = field(default_factory=list)

    async def instruct(self, prefix: PrefixLike, number: int) -> None:
        """Have the next user turn written, the first being number 0.

        Raises:
            Failed: There is none to be had, or it is unfit.
        """
        sampling = self.options.instruction
        stops = tuple(dict.fromkeys([*sampling.stop, *prefix.stop]))
        try:
            before = prefix.before(self.messages)
        except UserError as error:
            if not self.messages:
                raise
            raise Failed(f"conversation does not fit the chat template: {error}") from error
        # The row's number keeps rows apart whose prefixes are equal, as those of a category all are.
        answer = await self._ask("instruction", number, replace(sampling, stop=list(stops)), prompt=before)
        text, ended = cut(answer.text, stops)
        if not ended and (reason := broken_off(answer, False, what="instruction")):
            raise Failed(reason)
        if not text:
            raise Failed("empty instruction")
        if any(message["content"] == text for message in self.messages):
            raise Failed("instruction repeated")
        self.messages.append(_checked("user", text))

    async def answer(self, number: int) -> None:
        """Have the conversation answered.

        Raises:
            Failed: There is no answer to be had, or it is unfit.
        """
        answer = await self._ask("answer", number, self.options.sampling, messages=tuple(self.messages))
        if reason := unfit(answer, self.options.keep_truncated):
            raise Failed(reason)
        self.messages.append(_checked("assistant", answer.text))
        self.reasons.append(answer.finish_reason)

    def meta(self) -> dict[str, Any]:
        """Return what is known of the conversation so far."""
        meta: dict[str, Any] = {"category": self.category.name}
        if self.reasons:
            meta["finish_reason"] = LENGTH if LENGTH in self.reasons else self.reasons[-1]
        return meta | {
            "prompt_tokens": sum(answer.prompt_tokens for answer in self.answers),
            "completion_tokens": sum(answer.completion_tokens for answer in self.answers),
        }

    async def _ask(self, purpose: str, number: int, sampling: Sampling, **asked: Any) -> Answer:
        request = Request(
            sampling=sampling,
            seed=seed_for(sampling, self.seed, self.row.id, f"{purpose} {number}"),
            sample=self.row.number if purpose == "instruction" else 0,
            **asked,
        )
        answer = await self.asker.ask(request, "teacher")
        self.answers.append(answer)
        return answer


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return a text up to the first of some stops, without outer blanks, and whether there was one."""
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return (text[: min(places)] if places else text).strip(), bool(places)


def _checked(role: str, text: str) -> Message:
    try:
        message = turn(role, text)
    except BadRow as bad:
        raise Failed(str(bad)) from bad
    alone = SftRow(id="", messages=[message], source="", language="", license=None, meta="{}")
    (found,) = _markup()([alone])
    if isinstance(found, Rejected):
        raise Failed(found.reason)
    return message


@cache
def _markup() -> Markup:
    return Markup(MarkupFilter())


def _at(reason: str, number: int, turns: int) -> str:
    """Say in which turn a row failed, where it has several; after the colon, so that failures are counted by kind."""
    if turns == 1:
        return reason
    return f"{reason}{', ' if ': ' in reason else ': '}turn {number + 1}"


def _system(options: MagpieRollout, category: Category, number: int) -> str | None:
    """Return the system prompt of user turn `number`: the category's for the first, that of follow-ups after it.

    In a language without a prompt for follow-ups, the category's stands for it: an English one would have the user go
    on in English.
    """
    follow_up = prompt(FOLLOW_UP, prompts_language(options))
    if number == 0 or follow_up.language != prompts_language(options):
        return category.system or None
    return follow_up.render()


def prompt_names(options: MagpieRollout) -> list[str]:
    """Return the names of the prompts that the entry uses, for `prompt_texts`; see also `categories.texts`."""
    return [*([FOLLOW_UP] if options.turns > 1 else []), *([tag.prompt for tag in TAGS] if options.tag else [])]


def problems_of_magpie(options: MagpieRollout) -> list[str]:
    """Return what is wrong with an entry as a whole, each problem beginning with its key."""
    found = []
    if options.instruction.temperature == 0:
        found.append("instruction.temperature: 0 writes the same instruction for every row; 1 is usual")
    return [*found, *problems(options)]
