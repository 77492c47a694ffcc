"""What every step on rows shares: what it gives back, and which texts of a row it looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from posttrain.data.rows import Message, PreferenceRow, Row


@dataclass(frozen=True)
class Rejected:
    """Why a step refuses a row: a short countable reason, then a colon and the detail where there is one."""

    reason: str


Result: TypeAlias = Row | Rejected


class Step(Protocol):
    """A step over a batch of rows. It holds its own options and whatever it loaded."""

    name: str

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """Return one result a row, in order: the row, a changed copy of it, or why it is refused."""


def conversation(row: Row) -> list[Message]:
    """Return a row as one conversation, a pair with the chosen answer."""
    return [*row.prompt, *row.chosen] if isinstance(row, PreferenceRow) else row.messages


def user_texts(row: Row) -> Iterator[str]:
    """Yield the text of each user turn."""
    messages = row.prompt if isinstance(row, PreferenceRow) else row.messages
    return (message["content"] for message in messages if message["role"] == "user")


def answers(row: Row) -> Iterator[str]:
    """Yield what the model learns to say: each assistant turn, of a pair the chosen answer alone."""
    messages = row.chosen if isinstance(row, PreferenceRow) else row.messages
    return (message["content"] for message in messages if message["role"] == "assistant")
