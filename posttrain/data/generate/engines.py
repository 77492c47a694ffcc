"""The models that entries of `generate` ask: which of them are needed, and what asks them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posttrain.data.generate.stop import Stop
from posttrain.recipe import schema_generate as schema

if TYPE_CHECKING:
    from posttrain.data.generate.client import Client
    from posttrain.data.generate.requests import Engine
    from posttrain.data.generate.store import Store
    from posttrain.data.rows import Message


@dataclass(frozen=True)
class Models:
    """The models of a recipe; without a judge the teacher judges."""

    teacher: schema.Teacher | None
    judge: schema.Teacher | None = None
    reward: schema.RewardModel | None = None


def needed(entries: Sequence[schema.Rollout], models: Models) -> Models:
    """Return the models that some entries ask; a server that none of them asks need not run, nor its key be set."""
    asks_teacher = any(not isinstance(entry, schema.Rate) for entry in entries)
    teacher = models.teacher if asks_teacher or models.judge is None else None
    asks_judge = any(map(_asks_judge, entries))
    judge = models.judge if asks_judge or teacher is None else None
    return Models(teacher, judge, models.reward if any(map(_asks_reward, entries)) else None)


def _asks_judge(entry: schema.Rollout) -> bool:
    if isinstance(entry, schema.MagpieRollout):
        return entry.tag
    return isinstance(entry, schema.Rate) or (isinstance(entry, schema.Respond) and entry.best_of in ("judge", "both"))


def _asks_reward(entry: schema.Rollout) -> bool:
    return isinstance(entry, schema.Respond) and entry.best_of in ("reward", "both")


async def open_client(
    entries: Sequence[schema.Rollout], models: Models, seed: int, store: Store, stack: AsyncExitStack, stop: Stop
) -> Client:
    """Open the engines that entries need and what asks them; `stack` closes them.

    Raises:
        Interrupted: `stop` was requested before it was known what the judge's server can do.
        UserError: An engine cannot be used at all.
    """
    from posttrain.data.generate.client import Client
    from posttrain.data.generate.requests import Role
    from posttrain.data.generate.throttle import Throttle

    models = needed(entries, models)
    teacher = models.teacher or models.judge
    section: Role = "teacher" if models.teacher is not None else "judge"
    assert teacher is not None, "the recipe's checks let no entry through without a model to ask"
    writes_prompts = any(isinstance(entry, schema.MagpieRollout) for entry in entries)
    throttles: dict[Role, Throttle] = {"teacher": Throttle(teacher.max_concurrency)}
    judge = models.judge if models.teacher is not None else None
    if judge is not None:
        throttles["judge"] = Throttle(judge.max_concurrency)
    client = Client(
        _engine(teacher, section, writes_prompts),
        store,
        teacher_key=(teacher.model, teacher.revision),
        teacher_section=section,
        judge=_engine(judge, "judge", False) if judge is not None else None,
        judge_key=(judge.model, judge.revision) if judge is not None else None,
        reward=_scores(models.reward, store, stack) if models.reward is not None else None,
        throttles=throttles,
        max_attempts=teacher.max_attempts,
        judge_max_attempts=judge.max_attempts if judge is not None else None,
        seed=seed,
    )
    stack.push_async_callback(client.close)
    if any(map(_asks_judge, entries)):
        await _started(client, stop)
    return client


async def _started(client: Client, stop: Stop) -> None:
    """Start a client, or give that up once a stop is requested: a server may let its first answer wait for minutes."""
    starting = asyncio.ensure_future(client.start())
    try:
        with stop.calling(starting.cancel):
            await starting
    except asyncio.CancelledError:
        if not stop.requested:
            raise
        raise stop.interruption("judge", "before its server answered") from None


def _engine(teacher: schema.Teacher, key: str, writes_prompts: bool) -> Engine:
    """Make the engine of a section; where whole prompts are sent, the server must not add a BOS of its own."""
    if teacher.engine == "local":
        from posttrain.data.generate.local import Local

        return Local(teacher, key)
    if teacher.engine == "sample":
        from posttrain.data.generate.stand_in import StandIn

        return StandIn()
    from posttrain.data.generate.endpoint import Endpoint

    bos = None
    if writes_prompts:
        from posttrain.data.generate.encoding import adds_bos
        from posttrain.data.generate.models import load_tokenizer

        tokenizer = load_tokenizer(teacher, key)
        bos = str(tokenizer.bos_token) if adds_bos(tokenizer) else None
    return Endpoint(teacher, bos=bos)


def _scores(
    section: schema.RewardModel, store: Store, stack: AsyncExitStack
) -> Callable[[Sequence[Message]], Awaitable[float]]:
    from posttrain.data.generate.reward import Reward
    from posttrain.data.generate.scores import Scores

    reward = Reward(section)
    stack.push_async_callback(reward.close)
    return Scores(section, store, reward.score).score


def rows_at_once(models: Models) -> int:
    """Return how many rows are worked on at once: enough for each model to have all it can take.

    That is twice as many as it answers at once: meanwhile other rows wait for their answers to be stored.
    """
    return 2 * max(
        section.max_concurrency if section.engine == "endpoint" else section.batch_size
        for section in (models.teacher, models.judge)
        if section is not None
    )
