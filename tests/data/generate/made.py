"""What tests of rollouts share: an asker that answers by a script, and rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from posttrain.data.generate.requests import Answer, Asker, Request, Role
from posttrain.data.generate.rows import InputRow, Outcome, Rollout
from posttrain.data.rows import Message

Said: TypeAlias = Answer | str | Exception
Script: TypeAlias = Callable[[Request], Said]


class Scripted(Asker):
    """Answers each request by a function of it, and keeps what it was asked.

    A string is an answer that ends with `stop`, one token a word; an exception is raised.

    Args:
        teacher: Answers what the teacher is asked; without it such a request fails the test.
        judge: The same for the judge.
        reward: Scores a conversation.
        structured: Whether the judge enforces a schema.
        late: After how many rounds of the event loop an answer comes, so that answers can overtake each other.

    Attributes:
        asked: Each request with whom it was for, in order.
        scored: Each conversation that was scored.
        most: The most requests that were under way at once.
        under_way: How many are.
    """

    def __init__(
        self,
        teacher: Script | None = None,
        judge: Script | None = None,
        *,
        reward: Callable[[Sequence[Message]], float] | None = None,
        structured: bool = False,
        late: Callable[[Request], int] = lambda request: 1,
    ) -> None:
        self._scripts: dict[Role, Script | None] = {"teacher": teacher, "judge": judge}
        self._reward_of = reward
        self.structured = structured
        self._late = late
        self.asked: list[tuple[Role, Request]] = []
        self.scored: list[list[Message]] = []
        self.most = 0
        self.under_way = 0

    async def ask(self, request: Request, of: Role = "teacher") -> Answer:
        script = self._scripts[of]
        assert script is not None, f"nobody expects the {of} to be asked"
        self.asked.append((of, request))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for _ in range(self._late(request)):
                await asyncio.sleep(0)
            return as_answer(script(request))
        finally:
            self.under_way -= 1

    async def score(self, messages: Sequence[Message]) -> float:
        assert self._reward_of is not None, "nobody expects a reward to be asked for"
        self.scored.append(list(messages))
        await asyncio.sleep(0)
        return self._reward_of(messages)

    def requests(self, of: Role = "teacher") -> list[Request]:
        return [request for role, request in self.asked if role == of]


def as_answer(said: Said) -> Answer:
    if isinstance(said, Exception):
        raise said
    if isinstance(said, str):
        return Answer(text=said, finish_reason="stop", prompt_tokens=10, completion_tokens=len(said.split()))
    return said


def truncated(text: str) -> Answer:
    return Answer(text=text, finish_reason="length", prompt_tokens=10, completion_tokens=4096)


def last_user(request: Request) -> str:
    assert request.messages is not None
    assert request.messages[-1]["role"] == "user"
    return request.messages[-1]["content"]


def turns(*texts: str, system: str | None = None) -> list[Message]:
    """Return a conversation: texts of user and assistant in turn."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def row(messages: list[Message], *, id: str = "row-1", language: str = "en", **keys: Any) -> InputRow:
    return InputRow(number=0, id=id, messages=messages, language=language, **keys)


def outcome(rollout: Rollout, given: InputRow, asker: Asker) -> Outcome:
    """Put one row through a rollout."""
    return asyncio.run(_outcome(rollout, given, asker))


async def _outcome(rollout: Rollout, given: InputRow, asker: Asker) -> Outcome:
    return await rollout(given, asker)
