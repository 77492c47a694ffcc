"""Which source each block of a mixture comes from, and which block of it.

Blocks are of equal length and of one source each, so shares of blocks are shares of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_EPSILON = 1e-7  # more than a share times 10^8 blocks is rounded by


def turns(shares: Sequence[float]) -> Iterator[int]:
    """Yield without end the source that each block is of.

    The number of blocks of a source among the first n is never as much as 1 away from its share of n, so among any
    thousand that follow each other it is at most 2 away: 0.2 percentage points. (R. Tijdeman, The chairman assignment
    problem, Discrete Mathematics 32, 1980.)

    Args:
        shares: Positive; they are made to add up to 1.
    """
    total = sum(shares)
    weights = [share / total for share in shares]
    if len(weights) == 1:
        while True:
            yield 0
    least = 1 / (2 * len(weights) - 2)
    taken = [0] * len(weights)
    blocks = 0
    while True:
        blocks += 1
        best, soonest, most_behind, furthest = -1, float("inf"), 0, float("-inf")
        for source, weight in enumerate(weights):
            behind = weight * blocks - taken[source]
            if behind > furthest:
                most_behind, furthest = source, behind
            if behind >= least - _EPSILON:  # it may have the block without getting ahead too far
                deadline = (1 - least - behind) / weight  # in how many blocks it must have one
                if deadline < soonest - _EPSILON:
                    best, soonest = source, deadline
        source = best if best >= 0 else most_behind
        taken[source] += 1
        yield source


@dataclass(frozen=True)
class Mixture:
    """How a mixture turns out.

    Attributes:
        blocks: How many blocks it has.
        taken: How many of them each source gives, repetitions counted.
        ended_by: The source that ran out and ended it early, or None.
    """

    blocks: int
    taken: list[int]
    ended_by: int | None = None


def mix(shares: Sequence[float], limits: Sequence[int | None], most: int | None = None) -> Mixture:
    """Mix until a source has given all that it may, or there are blocks enough.

    Args:
        shares: The shares of the sources.
        limits: How many blocks each may give; None is without limit.
        most: How many blocks there shall be; None asks for a limit that is reached.
    """
    taken = [0] * len(shares)
    for blocks, source in enumerate(turns(shares)):
        if blocks == most:
            return Mixture(blocks, taken)
        limit = limits[source]
        if limit is not None and taken[source] == limit:
            return Mixture(blocks, taken, source)
        taken[source] += 1
    raise AssertionError("the turns have no end")


def settle(
    shares: Sequence[float],
    have: Sequence[int],
    repeat: Sequence[bool],
    *,
    asked: int | None,
    epochs: float,
    together: int,
) -> Mixture:
    """Return the mixture that a run trains on.

    Args:
        shares: The shares of the sources.
        have: How many different blocks each has.
        repeat: Whether each is begun again when it has run out; otherwise it ends the mixture.
        asked: How many blocks the run asks for, or None where it goes by epochs.
        epochs: How often the run goes through the mixture in which the first source runs out.
        together: Blocks a step; the mixture is a multiple of it.
    """
    if asked is None:
        asked = int(mix(shares, have).blocks * epochs + _EPSILON)
    limits = [None if again else count for count, again in zip(have, repeat, strict=True)]
    settled = mix(shares, limits, asked // together * together)
    whole = settled.blocks // together * together
    return settled if whole == settled.blocks else Mixture(whole, mix(shares, limits, whole).taken, settled.ended_by)


def order(shares: Sequence[float], have: Sequence[int], blocks: int, seed: int) -> Iterator[int]:
    """Yield the number of each block of a mixture, the blocks of all sources being numbered one after the other.

    Each time that a source is gone through its blocks come in another order, drawn from the seed.

    Args:
        shares: The shares of the sources.
        have: How many different blocks each has.
        blocks: How many to yield.
        seed: The recipe's seed.
    """
    starts = [sum(have[:source]) for source in range(len(have))]
    taken = [0] * len(have)
    shuffled: list[np.ndarray | None] = [None] * len(have)
    for _, source in zip(range(blocks), turns(shares), strict=False):
        epoch, place = divmod(taken[source], have[source])
        current = shuffled[source]
        if place == 0 or current is None:
            current = shuffled[source] = _permutation(have[source], seed, source, epoch)
        taken[source] += 1
        yield starts[source] + int(current[place])


def _permutation(count: int, seed: int, source: int, epoch: int) -> np.ndarray:
    import numpy as np

    return np.random.default_rng([seed, source, epoch]).permutation(count)
