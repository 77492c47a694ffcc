"""How rollouts ask: the store first, then the model through the throttle, again after a failure, and into the store."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from posttrain.data.generate.draining import Draining
from posttrain.data.generate.requests import Answer, Engine, Failed, Request, Role, Transient
from posttrain.data.generate.stats import Stats
from posttrain.data.generate.store import Store
from posttrain.data.generate.throttle import LONGEST_PAUSE, Throttle
from posttrain.data.rows import Message
from posttrain.errors import UserError

BACK_OFF = (1.0, 60.0)  # seconds: the longest wait after the first failure, doubled with each, and the most it gets to
GIVEN_UP = 32  # requests in a row without an answer, before the fault is the server's and not theirs
UNREACHABLE = 3  # attempts to connect before a server that never answered counts as not running


@dataclass(frozen=True)
class _Model:
    section: Role  # of the recipe, which messages name
    engine: Engine
    key: tuple[str, str | None]
    throttle: Throttle
    max_attempts: int


class Client:
    """Asks the teacher and the judge; the `Asker` of a run. Everything is called from one event loop.

    An answer is returned once it is in the store. Two questions with the same key, asked at the same time, are one
    request. What fails for good is not stored: another run asks again.

    Args:
        teacher: What answers as the teacher.
        store: Where answers are kept; whoever opened it closes it, after `close`.
        teacher_key: Name and revision of the teacher, as they go into the keys of its answers.
        teacher_section: The section of the recipe that describes it, for messages: `judge` where that is the only one.
        judge: What answers as the judge, or None: the teacher does.
        judge_key: Name and revision of the judge.
        reward: Scores a conversation, where the recipe has a reward model.
        throttles: One for each role, by default of 256; with no judge of its own only the teacher's is used.
        stats: What is counted; a new one by default.
        max_attempts: How often one request is sent, the first time included.
        judge_max_attempts: The same for the judge; by default as for the teacher.
        seed: Of the waits between attempts.
        back_off: Seconds: the longest wait after the first failure, doubled with each, and the most it gets to.

    Attributes:
        structured: Whether the judge enforces `Request.schema`; of a server it is known after `start`.
        stats: What was counted.
    """

    def __init__(
        self,
        teacher: Engine,
        store: Store,
        *,
        teacher_key: tuple[str, str | None],
        teacher_section: Role = "teacher",
        judge: Engine | None = None,
        judge_key: tuple[str, str | None] | None = None,
        reward: Callable[[Sequence[Message]], Awaitable[float]] | None = None,
        throttles: Mapping[Role, Throttle] | None = None,
        stats: Stats | None = None,
        max_attempts: int = 6,
        judge_max_attempts: int | None = None,
        seed: int = 0,
        back_off: tuple[float, float] = BACK_OFF,
    ) -> None:
        throttles = throttles or {}
        asked = _Model(teacher_section, teacher, teacher_key, throttles.get("teacher") or Throttle(256), max_attempts)
        self._models: dict[Role, _Model] = {"teacher": asked, "judge": asked}
        if judge is not None:
            if judge_key is None:
                raise ValueError("a judge needs a judge_key")
            own = throttles.get("judge") or Throttle(256)
            self._models["judge"] = _Model("judge", judge, judge_key, own, judge_max_attempts or max_attempts)
        self.structured = self._models["judge"].engine.structured
        self.store = store
        self.stats = stats or Stats()
        self._reward = reward
        self._seed = seed
        self._back_off = back_off
        self._in_work: dict[bytes, asyncio.Task[Answer]] = {}
        self._stopping = asyncio.Event()
        self._heard: dict[int, float] = {}  # when each engine last gave a sign of life
        self._given_up: Counter[int] = Counter()  # requests in a row, for each engine
        self._problem: UserError | None = None

    async def start(self) -> None:
        """Find out what the judge's server can do, which costs it one short request.

        Raises:
            UserError: It cannot be used at all.
        """
        model = self._models["judge"]
        probe = getattr(model.engine, "probe", None)
        if probe is None:
            return
        began = time.monotonic()
        for attempt in range(1, model.max_attempts + 1):
            try:
                await probe()
                break
            except Transient as error:
                self._look_for_life(model, error, attempt, began)
                if attempt == model.max_attempts:
                    raise UserError(f"{model.section}: {_where(model)} does not answer: {error.kind}") from None
                await self._wait(error, b"probe", attempt)
        self._alive(model)
        self.structured = model.engine.structured

    async def ask(self, request: Request, of: Role = "teacher") -> Answer:
        """Return an answer, from the store or after as many attempts as it takes.

        Raises:
            Failed: There is none to be had.
            Draining: `stop` was called before the request, or its next attempt, was sent.
            UserError: No request of this run can succeed.
        """
        model = self._models[of]
        key = request.key(*model.key)
        work = self._in_work.get(key)
        if work is None:
            kept = self.store.get(key)
            if kept is not None:
                self.stats.stored()
                return kept
            if self._problem is not None:
                raise UserError(self._problem.problems)
            if self._stopping.is_set():
                raise Draining
            work = asyncio.get_running_loop().create_task(self._answer(model, request, key))
            self._in_work[key] = work
            work.add_done_callback(lambda done: self._finished(key, done))
        # Shielded, so that an asker that is cancelled does not waste an answer that is being paid for.
        return await asyncio.shield(work)

    async def score(self, messages: Sequence[Message]) -> float:
        """Return the reward model's score of a conversation that ends with an assistant turn.

        Raises:
            Failed: It has none.
            UserError: The recipe has no reward model.
        """
        if self._reward is None:
            raise UserError("no reward model: the recipe needs a section `reward`, with its model")
        return await self._reward(messages)

    def stop(self) -> None:
        """Send nothing any more. What is in flight is answered and stored; everything else raises `Draining`."""
        self._stopping.set()
        for model in self._models.values():
            model.throttle.stop()

    async def drained(self) -> None:
        """Wait until nothing is in flight; whatever came of it has gone to those who asked."""
        while self._in_work:
            await asyncio.wait(list(self._in_work.values()))

    async def close(self) -> None:
        """Stop, wait for what is in flight, and let go of the engines."""
        self.stop()
        await self.drained()
        for engine in {id(model.engine): model.engine for model in self._models.values()}.values():
            await engine.close()

    def _finished(self, key: bytes, done: asyncio.Task[Answer]) -> None:
        del self._in_work[key]
        if not done.cancelled():
            done.exception()  # marks it as seen: the asker may be gone

    async def _answer(self, model: _Model, request: Request, key: bytes) -> Answer:
        try:
            answer = await self._tried(model, request, key)
            # The slot is free again by now: waiting for the commit keeps no request from being sent.
            await self.store.put(key, answer)
        except UserError as error:
            self._problem = error
            self.stop()  # whoever waits for a turn, or for the next attempt, would wait in vain
            raise
        return answer

    async def _tried(self, model: _Model, request: Request, key: bytes) -> Answer:
        began = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._attempt(model, request)
            except Transient as error:
                self._look_for_life(model, error, attempt, began)
                if attempt >= model.max_attempts:
                    raise self._give_up(model, f"no answer: {error.kind} after {attempt} attempts") from None
                self.stats.retried(error.kind)
                await self._wait(error, key, attempt)
            except Failed as error:
                self._alive(model)
                self.stats.failed(error.reason)
                raise
            else:
                self._alive(model)
                return answer

    async def _attempt(self, model: _Model, request: Request) -> Answer:
        throttle = model.throttle
        ticket = await throttle.acquire()
        try:
            if self._problem is not None:
                raise UserError(self._problem.problems)
            self.stats.sent()
            began = time.monotonic()
            try:
                answer = await model.engine.complete(request)
            finally:
                self.stats.returned()
            now = time.monotonic()
            self.stats.answered(answer, now - began)
            throttle.answered(now - began, answer.completion_tokens)
            return answer
        except Transient as error:
            if error.overload:
                throttle.overloaded(ticket)
            if error.retry_after is not None:
                throttle.pause(error.retry_after)
            raise
        finally:
            throttle.release()

    def _alive(self, model: _Model) -> None:
        self._heard[id(model.engine)] = time.monotonic()
        self._given_up[id(model.engine)] = 0

    def _give_up(self, model: _Model, reason: str) -> Failed | UserError:
        """Return what a request without an answer ends with: so many in a row end the run, not its rows."""
        self.stats.failed(reason)
        self._given_up[id(model.engine)] += 1
        if self._given_up[id(model.engine)] < GIVEN_UP:
            return Failed(reason)
        section = model.section
        return UserError(
            f"{section}: {GIVEN_UP} requests in a row were given up at {_where(model)}, the last one with {reason!r}; "
            f"see to the server, or raise {section}.timeout or {section}.max_attempts, and give the same command again"
        )

    def _look_for_life(self, model: _Model, error: Transient, attempt: int, began: float) -> None:
        """Raise a `UserError` where the server is gone, or never was: rows must not be given up for that.

        Gone means: every attempt of a request failed to connect, and no other request got through in the meantime.
        """
        heard = self._heard.get(id(model.engine))
        if error.kind != "connection":
            if error.kind != "connection lost":
                self._heard[id(model.engine)] = time.monotonic()
            return
        patience = min(UNREACHABLE, model.max_attempts) if heard is None else model.max_attempts
        if attempt < patience or (heard is not None and heard >= began):
            return
        section = model.section
        never = "no connection to" if heard is None else "the connection was lost to"
        raise UserError(
            f"{section}: {never} {_where(model)} (tried {attempt} times); start the server, or correct "
            f"{section}.base_url, and give the same command again"
        )

    async def _wait(self, error: Transient, key: bytes, attempt: int) -> None:
        """Wait before the next attempt: exponential, with full jitter, on top of what the server asks for."""
        first, most = self._back_off
        jitter = random.Random(f"{self._seed} {key.hex()} {attempt}").random()
        delay = jitter * min(most, first * 2 ** (attempt - 1)) + min(error.retry_after or 0.0, LONGEST_PAUSE)
        try:
            await asyncio.wait_for(self._stopping.wait(), delay)
        except asyncio.TimeoutError:
            return
        raise Draining


def _where(model: _Model) -> str:
    return str(getattr(model.engine, "address", "the server"))
