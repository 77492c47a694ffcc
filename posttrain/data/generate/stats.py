"""What asking has come to so far: requests, answers, tokens, retries and failures by kind, latency."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from posttrain.data.generate.requests import Answer
from posttrain.data.rows import reason_kind


class Stats:
    """Counters of a run, for its progress and its summary. Kinds are countable words, so that no secret gets in.

    Attributes:
        requests: Sent, retries included.
        answers: Had from a model in this run.
        from_store: Answers that were had before.
        prompt_tokens: Read by the models for `answers`.
        completion_tokens: Written by the models for `answers`.
        retries: How many requests failed and were tried again, by kind.
        failures: How many failed for good, by kind.
        in_flight: Requests sent and not yet answered.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._seconds = 0.0
        self._longest = 0.0
        self.requests = 0
        self.answers = 0
        self.from_store = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.retries: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.in_flight = 0

    def sent(self) -> None:
        """Count a request that leaves."""
        self.requests += 1
        self.in_flight += 1

    def returned(self) -> None:
        """Count a request as no longer in flight, whatever came of it."""
        self.in_flight -= 1

    def stored(self) -> None:
        """Count an answer that needed no request."""
        self.from_store += 1

    def answered(self, answer: Answer, seconds: float) -> None:
        """Count an answer and the time from sending to having it."""
        self.answers += 1
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        self._seconds += seconds
        self._longest = max(self._longest, seconds)

    def retried(self, kind: str) -> None:
        """Count a request that failed and is tried again."""
        self.retries[kind] += 1

    def failed(self, reason: str) -> None:
        """Count a request that failed for good, under its reason up to the first colon."""
        self.failures[reason_kind(reason)] += 1

    def snapshot(self) -> dict[str, Any]:
        """Return all of it as plain JSON; times in seconds, rates per second since this object was made."""
        seconds = max(self._clock() - self._began, 1e-9)
        return {
            "requests": self.requests,
            "answers": self.answers,
            "from_store": self.from_store,
            "in_flight": self.in_flight,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "retries": dict(sorted(self.retries.items())),
            "failures": dict(sorted(self.failures.items())),
            "seconds": seconds,
            "requests_per_second": self.requests / seconds,
            "prompt_tokens_per_second": self.prompt_tokens / seconds,
            "completion_tokens_per_second": self.completion_tokens / seconds,
            "latency_mean": self._seconds / self.answers if self.answers else 0.0,
            "latency_max": self._longest,
        }
