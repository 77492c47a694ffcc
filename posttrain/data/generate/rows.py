"""What goes into a rollout and what comes out: one outcome for each row, in the rows' order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from posttrain.data.generate.requests import Asker
from posttrain.data.rows import Message


@dataclass(frozen=True, kw_only=True)
class InputRow:
    """A row to work on: its place from 0, the id that seeds derive from; and why an earlier entry lost it, if so."""

    number: int
    id: str
    messages: list[Message]
    language: str
    license: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    failed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a row: its messages, or why there are none.

    Attributes:
        messages: The conversation, or None where the row failed.
        language: Its language, where the rollout changes it.
        meta: What is added to the row's metadata: plain JSON, such as ratings, tags, `finish_reason`.
        failed: Why the row failed, countable up to the first colon; None where it did not.
    """

    messages: list[Message] | None = None
    language: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    failed: str | None = None


Rollout: TypeAlias = Callable[[InputRow, Asker], Awaitable[Outcome]]
