"""A model that answers by a script: late, in any order, and not always; and rows to ask it about."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from posttrain.data.generate.draining import Draining
from posttrain.data.generate.requests import Answer, Failed, Request, Role
from posttrain.data.generate.requests import Asker as Asks
from posttrain.data.generate.rows import InputRow, Outcome
from posttrain.data.rows import Message
from posttrain.recipe.schema_generate import Sampling

Wait = Callable[[str], float]


def rows(count: int, *, long: int = 1) -> Iterator[InputRow]:
    """Yield rows whose question is their number, `long` times."""
    for number in range(count):
        question: list[Message] = [{"role": "user", "content": " ".join([str(number)] * long)}]
        digest = hashlib.sha256(str(number).encode()).hexdigest()[:32]
        yield InputRow(number=number, id=digest, messages=question, language="en", meta={"row": number})


async def respond(row: InputRow, asker: Asks) -> Outcome:
    """Ask for an answer to the row."""
    answer = await asker.ask(Request(messages=tuple(row.messages), sampling=Sampling()))
    return outcome(row, answer.text)


async def twice(row: InputRow, asker: Asks) -> Outcome:
    """Ask for an answer, and then for one to the answer."""
    first = await asker.ask(Request(messages=tuple(row.messages), sampling=Sampling()))
    again: Message = {"role": "user", "content": first.text}
    second = await asker.ask(Request(messages=(again,), sampling=Sampling(), sample=1))
    return outcome(row, second.text)


def outcome(row: InputRow, text: str) -> Outcome:
    messages = [*row.messages, {"role": "assistant", "content": text}]
    return Outcome(messages=messages, meta={"finish_reason": "stop"})


def at_random(seed: int, longest: float) -> Wait:
    """Return waits that differ from question to question and from seed to seed."""
    return lambda question: random.Random(f"{seed} {question}").random() * longest


class Scripted:
    """Answers `NUMBER` after a while; questions divisible by 7 fail for good, by 11 with another reason.

    Args:
        wait: From a question to the seconds that its answer takes; 0 is at once, without a look at the event loop.
        log: A file that gets a line for each question asked, for tests that kill the process.
    """

    structured = False

    def __init__(self, wait: Wait = lambda question: 0.0, log: Path | None = None) -> None:
        self.wait = wait
        self.asked: list[str] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.stopped = False
        self._log = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def ask(self, request: Request, of: Role = "teacher") -> Answer:
        assert request.messages is not None
        question = request.messages[-1]["content"]
        if self.stopped:
            raise Draining
        self.asked.append(question)
        if self._log is not None:
            os.write(self._log, f"{question}\n".encode())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            seconds = self.wait(question)
            if seconds:
                await asyncio.sleep(seconds)
        finally:
            self.in_flight -= 1
        number = int(question.split()[-1])
        if number % 7 == 0:
            raise Failed(f"no answer: time-out after {number}")
        if number % 11 == 0:
            raise Failed("refused")
        return Answer(text=f"answer {number}", finish_reason="stop", prompt_tokens=3, completion_tokens=2)

    async def score(self, messages: Sequence[Message]) -> float:
        raise NotImplementedError

    def stop(self) -> None:
        self.stopped = True


def files(folder: Path) -> dict[str, bytes]:
    """Return what a folder holds."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
