"""Asking again where an answer is of no use, warmer where the first try is greedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from posttrain.data.generate.requests import Answer, Asker, Failed, Request, Role, seed_for
from posttrain.data.generate.rollouts.answers import broken_off

T = TypeVar("T")


async def ask_again(
    asker: Asker,
    of: Role,
    request: Request,
    read: Callable[[Answer], T | Failed],
    *,
    retries: int,
    warmer: float,
    seed: int,
    row_id: str,
    purpose: str,
    keep_truncated: bool = False,
) -> T | Failed:
    """Ask until an answer is of use; return what was read in it, or why the last answer was of none.

    Each try is another sample of the same prompt. Those after the first are drawn at the temperature `warmer` where
    the first is greedy: asked again greedily, the model would write the same. An answer that was broken off is of no
    use, whatever it holds.

    Args:
        asker: What is asked.
        of: The teacher or the judge.
        request: The first try, but for its seed.
        read: From an answer to what it says, or to why that is not to be had.
        retries: How often the model is asked again at most.
        warmer: The temperature of further tries where the first is greedy.
        seed: The recipe's.
        row_id: The row's; with the purpose and the number of the try it decides the seed of each try.
        purpose: What is asked, as in `seed_of`.
        keep_truncated: Whether `read` is given answers that reached `max_tokens` too.

    Raises:
        Failed: A request failed for good.
    """
    found: T | Failed = Failed("not asked")
    for attempt in range(retries + 1):
        sampling = request.sampling
        if attempt and sampling.temperature == 0:
            sampling = replace(sampling, temperature=warmer)
        drawn = seed_for(sampling, seed, row_id, purpose, attempt)
        answer = await asker.ask(replace(request, sampling=sampling, seed=drawn, sample=attempt), of)
        reason = broken_off(answer, keep_truncated)
        found = read(answer) if reason is None else Failed(reason)
        if not isinstance(found, Failed):
            break
    return found
