"""What is asked of a model and what it answers: requests, answers, and the two ways in which asking can fail."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from posttrain.data.rows import Message, canonical
from posttrain.recipe.schema_generate import Sampling

Role: TypeAlias = Literal["teacher", "judge"]
LENGTH = "length"  # the `finish_reason` of an answer that reached `max_tokens`


@dataclass(frozen=True, kw_only=True)
class Request:
    """One answer to ask for: the next assistant turn of `messages`, or what follows the text `prompt`.

    Attributes:
        messages: A conversation that ends with a user turn, or None.
        prompt: Text with all special tokens written out, to which the server must add none, or None.
        sampling: How the answer is drawn.
        seed: Of the sampling; None where it is greedy, so that equal prompts are asked once.
        sample: Which of several answers to the same prompt this is.
        schema: A JSON schema that the answer has to follow, where the engine can enforce it.
    """

    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    sampling: Sampling
    seed: int | None = None
    sample: int = 0
    schema: Mapping[str, Any] | None = None

    def key(self, model: str, revision: str | None) -> bytes:
        """Return 16 bytes that identify the answer: model, revision, sampling, prompt and sample; no secret, no URL.

        Raises:
            Failed: It cannot be written as UTF-8.
        """
        parts = {
            "model": model,
            "revision": revision,
            "messages": self.messages,
            "prompt": self.prompt,
            "sampling": vars(self.sampling),
            "seed": self.seed,
            "sample": self.sample,
            "schema": self.schema,
        }
        return key_of(parts)


def key_of(parts: Mapping[str, Any]) -> bytes:
    """Return 16 bytes that identify what is kept under some values.

    Raises:
        Failed: They cannot be written as UTF-8.
    """
    try:
        return hashlib.sha256(canonical(parts).encode()).digest()[:16]
    except UnicodeEncodeError:
        raise Failed("not valid Unicode: the request holds half of a surrogate pair") from None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model answered. `finish_reason` is the server's own word: `stop`, `length`, ...; tokens are counts."""

    text: str
    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Transient(Exception):
    """A request that may succeed later.

    Attributes:
        kind: Countable: `429`, `503`, `time-out`, `connection`, `malformed answer`, ...
        retry_after: Seconds that the server asks to wait, or None.
        overload: Whether it says that the server has too much to do.
    """

    def __init__(self, kind: str, *, retry_after: float | None = None, overload: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.retry_after = retry_after
        self.overload = overload


class Failed(Exception):
    """A request, or a row, that fails for good. The reason is countable up to its first colon; it holds no secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Engine(Protocol):
    """Something that answers requests: a server, or a model in this process."""

    structured: bool  # whether `Request.schema` is enforced

    async def complete(self, request: Request) -> Answer:
        """Answer one request; called many times at once.

        Raises:
            Transient: It may be tried again.
            Failed: It makes no sense to.
        """

    async def close(self) -> None:
        """Let go of what it holds."""


class Asker(Protocol):
    """What a rollout is given to ask with. Answers that were had before come from a store, new ones are kept in it."""

    structured: bool  # whether the judge enforces `Request.schema`

    async def ask(self, request: Request, of: Role = "teacher") -> Answer:
        """Return an answer, after retries.

        Raises:
            Failed: There is none to be had.
        """

    async def score(self, messages: Sequence[Message]) -> float:
        """Return the reward model's score of a conversation that ends with an assistant turn."""


def seed_of(seed: int, row_id: str, purpose: str, sample: int = 0) -> int:
    """Return the seed, 31 bits, of one answer: of the recipe's seed, the row, what is asked and which sample."""
    text = f"{seed}\0{row_id}\0{purpose}\0{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def seed_for(sampling: Sampling, seed: int, row_id: str, purpose: str, sample: int = 0) -> int | None:
    """Return the seed of a request with this sampling, by `seed_of`; None where it is greedy."""
    return None if sampling.temperature == 0 else seed_of(seed, row_id, purpose, sample)
