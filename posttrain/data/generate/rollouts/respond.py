"""`respond`: a teacher answers user turns, several times each where wanted, and the best answer is taken."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.data.generate.requests import Answer, Asker, Failed, Request, seed_for
from posttrain.data.generate.rollouts.answers import unfit
from posttrain.data.generate.rollouts.rate import prompt_language, rated
from posttrain.data.generate.rollouts.together import together
from posttrain.data.generate.rows import InputRow, Outcome, Rollout
from posttrain.data.rows import BadRow, Message, check_order, reason_kind
from posttrain.recipe.schema_generate import Rate, Respond

UNRATED = "unrated"
SCALE = "quality"  # what the judge of `best_of` rates

_JUDGE = Rate(rollout="rate", name="best_of")  # for its defaults: greedy, and two retries


def respond(options: Respond, seed: int) -> Rollout:
    """Return the rollout of a `respond` entry.

    A sample is left out if its request failed, if it was broken off (`keep_truncated` lets those pass that reached
    `max_tokens`), if it is empty or not a valid turn, or if its score could not be had; a row fails where none is
    left, with the reason of the first one, and with `unrated` where the judge rated none. A row that `keep` leaves as
    it is gets `kept: true`; one that ends with a user turn is answered there, however many turns it has.

    The metadata get, of the last turn answered: `n`, `sample`, the number from 0 of the one taken, its
    `finish_reason`, `ratings` and `rewards` by sample where they decided, None for unrated, and under `left_out` how
    many samples were, by reason; `prompt_tokens` and `completion_tokens` are those of all samples of all turns; where
    several turns were answered, `turns` holds the same of each. The judge's `prompt_language` is as for `rate`.

    Args:
        options: The entry, in which `problems_of_respond` finds nothing.
        seed: The recipe's.
    """

    async def rollout(row: InputRow, asker: Asker) -> Outcome:
        users = [place for place, message in enumerate(row.messages) if message["role"] == "user"]
        if not users:
            return Outcome(failed="no user turn")
        if options.respond == "keep" and len(users) > 1 and row.messages[-1]["role"] == "assistant":
            return Outcome(messages=list(row.messages), meta={"kept": True})
        prompt = row.messages[: users[-1] + 1]
        try:
            check_order(prompt)
        except BadRow as bad:
            return Outcome(failed=str(bad))
        answering = _Answering(options, seed, row, asker)
        return await answering.all_turns(_with_system(prompt, options.system))

    return rollout


@dataclass
class _Turn:
    """The answers to one user turn: `samples` that can be taken by their number, and why the others cannot."""

    samples: dict[int, Answer] = field(default_factory=dict)
    left_out: dict[int, str] = field(default_factory=dict)
    ratings: dict[int, float | None] = field(default_factory=dict)
    rewards: dict[int, float | None] = field(default_factory=dict)
    taken: int | None = None
    failed: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def leave_out(self, sample: int, reason: str) -> None:
        self.samples.pop(sample, None)
        self.left_out.setdefault(sample, reason)

    def is_over(self) -> bool:
        """Tell whether no sample is left; then the turn fails with the reason of the first."""
        if not self.samples:
            self.failed = self.left_out[min(self.left_out)]
        return not self.samples


@dataclass(frozen=True)
class _Answering:
    """One row being answered."""

    options: Respond
    seed: int
    row: InputRow
    asker: Asker

    @property
    def _by_judge(self) -> bool:
        return self.options.best_of in ("judge", "both")

    @property
    def _by_reward(self) -> bool:
        return self.options.best_of in ("reward", "both")

    async def all_turns(self, prompt: Sequence[Message]) -> Outcome:
        """Answer the last user turn, or with `respond: all` each of them, leaving the old answers out."""
        every = self.options.respond == "all"
        messages: list[Message] = []
        turns: list[_Turn] = []
        for place, message in enumerate(prompt):
            if every and message["role"] == "assistant":
                continue
            messages.append(message)
            if message["role"] == "user" and (every or place == len(prompt) - 1):
                turns.append(await self._turn(messages, number=len(turns)))
                if turns[-1].taken is None:
                    return Outcome(meta=self._meta(turns), failed=turns[-1].failed)
                messages.append({"role": "assistant", "content": turns[-1].samples[turns[-1].taken].text})
        return Outcome(messages=messages, meta=self._meta(turns))

    def _meta(self, turns: Sequence[_Turn]) -> dict[str, Any]:
        metas = [self._meta_of(answered) for answered in turns]
        meta = dict(metas[-1])
        for count in ("prompt_tokens", "completion_tokens"):
            meta[count] = sum(each[count] for each in metas)
        if len(metas) > 1:
            meta["turns"] = metas
        return meta | prompt_language(prompt_names(self.options), self.row.language)

    def _meta_of(self, answered: _Turn) -> dict[str, Any]:
        meta: dict[str, Any] = {"n": self.options.n}
        if answered.taken is not None:
            meta |= {"sample": answered.taken, "finish_reason": answered.samples[answered.taken].finish_reason}
        if self._by_judge:
            meta["ratings"] = {str(sample): rating for sample, rating in answered.ratings.items()}
        if self._by_reward:
            meta["rewards"] = {str(sample): reward for sample, reward in answered.rewards.items()}
        if answered.left_out:
            meta["left_out"] = dict(sorted(Counter(map(reason_kind, answered.left_out.values())).items()))
        return meta | {"prompt_tokens": answered.prompt_tokens, "completion_tokens": answered.completion_tokens}

    async def _turn(self, messages: Sequence[Message], number: int) -> _Turn:
        """Draw the samples that answer `messages`, the user turn `number` from 0, and take one of them."""
        answered = _Turn()
        drawn = await together(self._ask(messages, number, sample) for sample in range(self.options.n))
        for sample, answer in enumerate(drawn):
            if isinstance(answer, Failed):
                answered.leave_out(sample, answer.reason)
                continue
            answered.prompt_tokens += answer.prompt_tokens
            answered.completion_tokens += answer.completion_tokens
            if reason := unfit(answer, self.options.keep_truncated):
                answered.leave_out(sample, reason)
            else:
                answered.samples[sample] = answer
        if answered.is_over():
            return answered
        candidates = dict(answered.samples)
        scores = await together(self._scores(messages, number, each, candidates[each].text) for each in candidates)
        for sample, found in zip(candidates, scores, strict=True):
            if isinstance(found, Failed):
                answered.leave_out(sample, found.reason)
            else:
                answered.ratings[sample], answered.rewards[sample] = found
        if not answered.is_over():
            self._take(answered)
        return answered

    def _take(self, answered: _Turn) -> None:
        """Take the sample with the best mean rank, the first of equals, unless the judge rated none."""
        if self._by_judge and all(rating is None for rating in answered.ratings.values()):
            answered.failed = UNRATED
            return
        samples = sorted(answered.samples)
        scores = [answered.ratings] * self._by_judge + [answered.rewards] * self._by_reward
        ranks = [_ranks([each[sample] for sample in samples]) for each in scores]
        sums = [sum(rank[place] for rank in ranks) for place in range(len(samples))]
        answered.taken = samples[sums.index(min(sums))]

    async def _ask(self, messages: Sequence[Message], number: int, sample: int) -> Answer:
        sampling = self.options.sampling
        request = Request(
            messages=tuple(messages),
            sampling=sampling,
            seed=seed_for(sampling, self.seed, self.row.id, f"respond {number}", sample),
            sample=sample,
        )
        return await self.asker.ask(request, "teacher")

    async def _scores(
        self, messages: Sequence[Message], number: int, sample: int, text: str
    ) -> tuple[float | None, float | None]:
        """Return the rating and the reward of a sample, each None where `best_of` does not want it."""
        dialogue = [*messages, {"role": "assistant", "content": text}]
        rating, reward = await together([self._rate(dialogue, number, sample), self._reward(dialogue)])
        if isinstance(rating, Failed):
            raise rating
        if isinstance(reward, Failed):
            raise reward
        return rating, reward

    async def _rate(self, messages: Sequence[Message], number: int, sample: int) -> float | None:
        if not self._by_judge:
            return None
        return await rated(
            self.asker,
            messages,
            self.row.language,
            SCALE,
            sampling=_JUDGE.sampling,
            retries=_JUDGE.retries,
            seed=self.seed,
            row_id=self.row.id,
            purpose=f"respond {number}, rating of {sample}",
        )

    async def _reward(self, messages: Sequence[Message]) -> float | None:
        if not self._by_reward:
            return None
        reward = await self.asker.score(messages)
        if not math.isfinite(reward):
            raise Failed(f"reward is not a number: {reward}")
        return reward


def _ranks(scores: Sequence[float | None]) -> list[float]:
    """Return ranks from 1 for the highest; equal scores share the mean of their ranks, None is below every score."""
    values = [-math.inf if score is None else score for score in scores]
    return [sum(other > value for other in values) + (values.count(value) + 1) / 2 for value in values]


def _with_system(messages: Sequence[Message], system: str | None) -> list[Message]:
    """Return the messages with `system` as their system turn, in place of their own; as they are where it is None."""
    if system is None:
        return list(messages)
    return [{"role": "system", "content": system}, *(each for each in messages if each["role"] != "system")]


def prompt_names(options: Respond) -> list[str]:
    """Return the names of the prompts that the entry uses, for `prompt_texts`."""
    return [SCALE] if options.best_of in ("judge", "both") else []


def problems_of_respond(options: Respond) -> list[str]:
    """Return what is wrong with an entry as a whole, each problem beginning with its key."""
    problems = []
    if options.n > 1 and options.sampling.temperature == 0:
        problems.append(
            f"n: {options.n} samples at temperature 0 are all the same; raise sampling.temperature or set n: 1"
        )
    if options.system is not None and not options.system.strip():
        problems.append("system: is blank; leave it out to keep the system turns that the rows have")
    return problems
