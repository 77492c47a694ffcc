"""How many requests are out at once: more while the server keeps up, fewer when it pushes back or slows down.

The limit starts low and grows by one with every answer, which doubles it each round (a round is as many answers as the
limit), until the server first pushes back. Then it follows additive increase and multiplicative decrease (Chiu and
Jain, 1989): up by a twentieth of the maximum each round, down to 0.7 of itself at a 429, a 503 or a time-out. Requests
sent before a decrease say nothing about the new limit, so one round can lower it only once.

Latency counts as well, as in TCP Vegas: the seconds that a round took for each token, against the best round so far. A
server that batches gets slower for every answer while it gives more in total, so only `TOLERANCE` times the best takes
the limit down, and never below the limit at which the best was seen.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from posttrain.data.generate.draining import Draining

FIRST = 16  # requests at once, before anything is known of the server
DECREASE = 0.7
INCREASE = 0.05  # of the maximum, each round
TOLERANCE = 8.0  # times the best seconds for each token
FORGET = 0.02  # of the way from the best round to the latest, so that a server that changed is learnt anew
START_TOKENS = 16  # what reading the prompt counts as, so that short answers do not look slow
LONGEST_PAUSE = 3600.0  # seconds; no `Retry-After` silences a run for longer


class Throttle:
    """Lets requests pass, first come, first served, as many at once as the server bears.

    Everything is called from one event loop.

    Args:
        max_concurrency: The most requests at once.
        clock: Seconds that never go back.
        sleep: Waits for seconds by that clock.
    """

    def __init__(
        self,
        max_concurrency: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.max_concurrency = max_concurrency
        self.in_flight = 0
        self._limit = float(min(FIRST, max_concurrency))
        self._clock = clock
        self._sleep = sleep
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._resume_at = 0.0
        self._resuming: asyncio.Task[None] | None = None
        self._stopped = False
        self._pushed_back = False  # ends the doubling
        self._decreases = 0
        self._round_seconds = 0.0
        self._round_tokens = 0
        self._round_answers = 0
        self._round_limit = self._limit  # at its beginning: how many answers it has
        self._was_full = False  # in this round; otherwise the limit is not what holds requests back
        self._best: tuple[float, float] | None = None  # seconds for each token, and the limit at the time

    @property
    def limit(self) -> int:
        """Return how many requests may be out at once now."""
        return int(self._limit)

    async def acquire(self) -> int:
        """Wait for a request's turn; return a ticket to report its end with. `release` must follow.

        Raises:
            Draining: `stop` was called before its turn came.
        """
        if self._stopped:
            raise Draining
        if self._waiting or not self._free():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn  # whoever grants the turn has counted it in `in_flight`
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and turn.exception() is None:
                    self.release()
                raise
        else:
            self._take()
        return self._decreases

    def release(self) -> None:
        """Count a request as back, whatever came of it."""
        self.in_flight -= 1
        self._admit()

    def answered(self, seconds: float, tokens: int) -> None:
        """Learn from an answer; called before its `release`.

        Args:
            seconds: From sending to having it.
            tokens: How many the model wrote.
        """
        self._round_seconds += seconds
        self._round_tokens += tokens + START_TOKENS
        self._round_answers += 1
        if self._was_full:
            step = INCREASE * self.max_concurrency / self._limit if self._pushed_back else 1.0
            self._limit = min(self._limit + step, float(self.max_concurrency))
        if self._round_answers >= int(self._round_limit):
            self._end_round()

    def overloaded(self, ticket: int) -> None:
        """Learn that the server refused the request of this ticket, or let it wait too long; before its `release`."""
        if ticket == self._decreases:
            self._decrease()

    def pause(self, seconds: float) -> None:
        """Send nothing for so long, as the server asked; a longer pause that is under way stays."""
        self._resume_at = max(self._resume_at, self._clock() + min(seconds, LONGEST_PAUSE))
        self._wake_later()

    def stop(self) -> None:
        """Let no request pass any more: those that wait, and those to come, raise `Draining`."""
        self._stopped = True
        if self._resuming is not None:
            self._resuming.cancel()
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(Draining())

    def _free(self) -> bool:
        return self.in_flight < self.limit and self._clock() >= self._resume_at

    def _take(self) -> None:
        self.in_flight += 1
        self._was_full = self._was_full or self.in_flight >= self.limit

    def _admit(self) -> None:
        while self._waiting and self._free():
            turn = self._waiting.popleft()
            if not turn.done():  # not cancelled
                self._take()
                turn.set_result(None)

    def _wake_later(self) -> None:
        if self._stopped or (self._resuming is not None and not self._resuming.done()):
            return
        self._resuming = asyncio.get_running_loop().create_task(self._resume())

    async def _resume(self) -> None:
        while (wait := self._resume_at - self._clock()) > 0:
            await self._sleep(wait)
        self._admit()

    def _end_round(self) -> None:
        pace, limit = self._round_seconds / self._round_tokens, self._round_limit
        if self._best is None or pace <= self._best[0]:
            self._best = (pace, limit)
        else:
            best, proven = self._best
            self._best = (best + FORGET * (pace - best), proven)
            if pace > TOLERANCE * best and self._limit > proven:
                self._decrease(floor=proven)
        self._round_seconds, self._round_tokens, self._round_answers = 0.0, 0, 0
        self._round_limit = self._limit
        self._was_full = self.in_flight >= self.limit

    def _decrease(self, floor: float = 1.0) -> None:
        self._pushed_back = True
        self._decreases += 1
        self._limit = max(floor, self._limit * DECREASE)
