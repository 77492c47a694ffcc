"""Conversations: first questions that never come twice, and further turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from .questions import Exchange, Task
from .tasks import FOLLOW_UPS, TASKS, ask, program
from .world import EN, FI

Message = dict[str, str]
_STEM = {task: weight for task, weight in TASKS.items() if task(Random(0), EN).domain == "stem"}
_GENERAL = {task: weight for task, weight in TASKS.items() if task(Random(0), EN).domain == "general"}


class Asker:
    """Draws questions, each only once over all the files, so that no file gives away another's held-out rows."""

    def __init__(self, asked: Iterable[str] = ()) -> None:
        self._asked = set(asked)

    def ask(self, r: Random, language: str, tasks: dict[Task, int] | None = None) -> Exchange:
        return self.ask_until(r, language, lambda x: True, tasks)

    def ask_until(
        self, r: Random, language: str, fits: Callable[[Exchange], bool], tasks: dict[Task, int] | None = None
    ) -> Exchange:
        """Draw until a new question fits."""
        while True:
            x = ask(r, language, tasks)
            if x.prompt not in self._asked and fits(x):
                self._asked.add(x.prompt)
                return x

    def ask_domain(self, r: Random, domain: str) -> Exchange:
        """Draw a question of a HelpSteer3 domain: `multilingual` is Finnish, the others are English."""
        if domain == "multilingual":
            return self.ask(r, FI)
        tasks: dict[str, dict[Task, int]] = {"general": _GENERAL, "stem": _STEM, "code": {program: 1}}
        return self.ask(r, EN, tasks[domain])


def follow_up(r: Random, x: Exchange) -> Exchange:
    """Ask further: about the same animal if the question before was about one."""
    if x.topic is not None:
        return r.choice([task for task in FOLLOW_UPS if task.__name__ != x.task])(r, x.language, x.topic)
    y = ask(r, x.language)
    while y.prompt == x.prompt:
        y = ask(r, x.language)
    return y


def conversation(r: Random, x: Exchange, turns: int) -> list[Message]:
    """Return the messages of `x` and of `turns` - 1 further questions, all answered rightly."""
    messages: list[Message] = []
    asked: set[str] = set()
    for _ in range(turns):
        messages += [{"role": "user", "content": x.prompt}, {"role": "assistant", "content": x.answers[0]}]
        asked.add(x.prompt)
        while x.prompt in asked:
            x = follow_up(r, x)
    return messages
