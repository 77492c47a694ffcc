"""The judge is asked: many units at once, every answer kept, so that no question is paid for twice."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.data.generate.draining import Draining
from posttrain.data.generate.engines import Models, open_client, rows_at_once
from posttrain.data.generate.progress import Progress, Status, following
from posttrain.data.generate.prompts import prompt, prompt_texts
from posttrain.data.generate.requests import Answer, Asker, Failed, Request, Role
from posttrain.data.generate.rollouts.again import ask_again
from posttrain.data.generate.rollouts.rate import RETRY_TEMPERATURE
from posttrain.data.generate.rollouts.together import together
from posttrain.data.generate.stop import Stop, stopping_on_signals
from posttrain.data.rows import reason_kind
from posttrain.errors import Interrupted
from posttrain.evaluate.judge.units import Unit
from posttrain.evaluate.judge.verdicts import SCHEMAS, UNREADABLE, Choice, Verdict, read_said
from posttrain.recipe.schema_generate import Rate, Sampling, Teacher

if TYPE_CHECKING:
    from posttrain.data.generate.store import Store

STORE = "answers.sqlite"  # as of the stage `generate`
PROMPTS = ("grade", "compare")
JUDGING = Sampling(temperature=0.0, max_tokens=2048)
RETRIES = 2  # how often the judge is asked again where it gave no verdict
_LOOK = 0.5  # seconds between updates of the progress


def ask_judge(
    name: str,
    units: Sequence[Unit],
    language: str,
    judge: Teacher,
    answers: Path,
    seed: int,
    *,
    section: Role = "judge",
    sampling: Sampling = JUDGING,
    retries: int = RETRIES,
) -> tuple[list[Verdict], dict[str, Any]]:
    """Return a verdict for each unit, in their order, and what was asked for in this run (`Stats.snapshot`).

    Args:
        name: Of the task, for the progress.
        units: What to ask.
        language: Of the prompts; English where there is none in it.
        judge: The section of the recipe.
        answers: The folder of the answers that were had before, of this or another recipe.
        seed: The recipe's, from which those of repeated requests derive.
        section: Which section of the recipe `judge` is, for messages.
        sampling: Of the first request; those after a greedy one have the temperature `RETRY_TEMPERATURE`.
        retries: How often the judge is asked again where its answer holds no verdict.

    Raises:
        Interrupted: A signal stopped it; what was under way has been answered and kept.
        UserError: The judge's server, model or key is at fault.
    """
    from posttrain.data.generate.store import Store

    with stopping_on_signals() as stop, Store(answers / STORE) as store:
        models = Models(None, judge) if section == "judge" else Models(judge)
        return asyncio.run(_ask(name, units, language, models, store, seed, sampling, retries, stop))


def judge_prompts() -> dict[str, str]:
    """Return the text of each prompt that judges are asked with, by its file: they determine the verdicts."""
    return prompt_texts(PROMPTS)


async def verdict_on(
    unit: Unit, asker: Asker, language: str, *, seed: int, sampling: Sampling = JUDGING, retries: int = RETRIES
) -> Verdict:
    """Ask about one unit until an answer can be read; one that cannot be read is never guessed at."""
    blank = unit.blank
    if blank.unjudged is not None:
        return blank
    text = prompt(blank.kind, language).render(**unit.values, structured=asker.structured)
    request = Request(
        messages=({"role": "user", "content": text},),
        sampling=sampling,
        schema=SCHEMAS[blank.kind] if asker.structured else None,
    )

    def read(answer: Answer) -> float | Choice | Failed:
        found = read_said(blank.kind, answer.text, asker.structured)
        return Failed(UNREADABLE) if found is None else found

    heard = _Heard(asker)
    found: float | Choice | Failed
    try:
        found = await ask_again(
            heard,
            "judge",
            request,
            read,
            retries=retries,
            warmer=RETRY_TEMPERATURE,
            seed=seed,
            row_id=unit.id,
            purpose="judge",
        )
    except Failed as failed:
        found = failed
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    asked = replace(blank, prompt_sha256=digest, said=tuple(heard.said))
    if isinstance(found, Failed):
        return replace(asked, unjudged=found.reason)
    return replace(asked, score=found) if isinstance(found, float) else replace(asked, choice=found)


class _Heard:
    """Notes every text that an asker returns."""

    def __init__(self, asker: Asker) -> None:
        self.structured = asker.structured
        self.said: list[str] = []
        self._asker = asker

    async def ask(self, request: Request, of: Role = "teacher") -> Answer:
        answer = await self._asker.ask(request, of)
        self.said.append(answer.text)
        return answer

    async def score(self, messages: Sequence[Mapping[str, str]]) -> float:
        return await self._asker.score([dict(message) for message in messages])


async def _ask(
    name: str,
    units: Sequence[Unit],
    language: str,
    models: Models,
    store: Store,
    seed: int,
    sampling: Sampling,
    retries: int,
    stop: Stop,
) -> tuple[list[Verdict], dict[str, Any]]:
    room = asyncio.Semaphore(rows_at_once(models))
    tally = _Tally(len(units))

    async def one(unit: Unit, asker: Asker) -> Verdict:
        async with room:
            verdict = await verdict_on(unit, asker, language, seed=seed, sampling=sampling, retries=retries)
        tally.add(verdict)
        await asyncio.sleep(0)  # answers that are all kept already would never let a signal or the progress in
        return verdict

    async with AsyncExitStack() as stack:
        # An entry that has the judge rate opens what judging needs.
        entry = Rate(rollout="rate", name=name)
        client = await open_client([entry], models, seed, store, stack, stop)
        with following(name, client.stats.snapshot, stage="eval", unit="verdicts") as progress:
            ticker = asyncio.create_task(_tick(progress, tally))
            try:
                with stop.calling(client.stop):
                    found = await together(one(unit, client) for unit in units)
            except Draining:
                number = stop.signal or signal.SIGTERM
                message = f"eval: {name}: stopped by {signal.Signals(number).name} after {tally.done} verdicts"
                raise Interrupted(message, number) from None
            finally:
                ticker.cancel()
            progress.update(tally.status, last=True)
        verdicts = [verdict for verdict in found if isinstance(verdict, Verdict)]
        assert len(verdicts) == len(units), "a request that fails leaves a verdict that says so"
        return verdicts, client.stats.snapshot()


class _Tally:
    """How many verdicts there are, and how many of them are none, by reason."""

    def __init__(self, total: int) -> None:
        self.done = 0
        self._total = total
        self._unjudged: Counter[str] = Counter()

    def add(self, verdict: Verdict) -> None:
        self.done += 1
        if verdict.unjudged is not None:
            self._unjudged[reason_kind(verdict.unjudged)] += 1

    @property
    def status(self) -> Status:
        return Status(done=self.done, total=self._total, failed=dict(self._unjudged))


async def _tick(progress: Progress, tally: _Tally) -> None:
    while True:
        progress.update(tally.status)
        await asyncio.sleep(_LOOK)
