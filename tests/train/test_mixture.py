"""Which source each block is of: shares over any window, every block once an epoch, the same from the same seed."""

from __future__ import annotations

from itertools import islice

import pytest

from posttrain.train.mixture import Mixture, mix, order, settle, turns

SHARES = [
    [0.3, 0.3, 0.3, 0.1],
    [1 / 3, 1 / 3, 1 / 3],
    [0.7, 0.3],
    [0.999, 0.001],
    [0.41, 0.23, 0.17, 0.11, 0.05, 0.03],
    [0.05] * 20,
    [1.0],
]


@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_shares_hold_over_any_thousand_blocks_and_from_the_start(shares: list[float]) -> None:
    blocks = 12_000
    sequence = list(islice(turns(shares), blocks))
    for source, share in enumerate(shares):
        taken = [0]
        for turn in sequence:
            taken.append(taken[-1] + (turn == source))
        assert max(abs(count - share * n) for n, count in enumerate(taken)) < 1
        windows = [taken[n + 1000] - taken[n] for n in range(blocks - 1000 + 1)]
        assert max(abs(window / 1000 - share) for window in windows) <= 0.002


def test_shares_need_not_make_one() -> None:
    assert list(islice(turns([3, 1]), 40)) == list(islice(turns([0.75, 0.25]), 40))


def test_mixing_ends_when_a_source_has_given_all_or_there_is_enough() -> None:
    assert mix([0.5, 0.5], [None, None], 7).taken in ([4, 3], [3, 4])
    ended = mix([0.5, 0.5], [None, 3])
    assert ended.ended_by == 1
    assert ended.taken[1] == 3
    assert ended.blocks == sum(ended.taken) in (6, 7)


def test_a_run_is_as_long_as_it_is_asked_to_be() -> None:
    def run(repeat: bool = True, asked: int | None = None, epochs: float = 1.0) -> Mixture:
        return settle([0.5, 0.5], [30, 10], [True, repeat], asked=asked, epochs=epochs, together=4)

    assert run() == Mixture(20, [10, 10])  # until the smaller one has been read once
    assert run(epochs=2.5) == Mixture(52, [26, 26])
    assert run(asked=100) == Mixture(100, [50, 50])
    assert run(asked=102) == Mixture(100, [50, 50])  # whole steps
    stopped = run(repeat=False, asked=100)
    assert (stopped.blocks, stopped.taken, stopped.ended_by) == (20, [10, 10], 1)
    assert run(repeat=False, asked=16) == Mixture(16, [8, 8])


def test_every_block_comes_once_an_epoch_and_epochs_differ() -> None:
    have, shares, blocks = [40, 7], [0.5, 0.5], 120
    numbers = list(order(shares, have, blocks, seed=5))
    sources = [[number for number in numbers if low <= number < low + count] for low, count in ((0, 40), (40, 7))]
    assert len(sources[0]) == len(sources[1]) == 60
    assert sorted(sources[0][:40]) == list(range(40))
    rounds = [sources[1][start : start + 7] for start in range(0, 56, 7)]
    assert all(sorted(each) == list(range(40, 47)) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 5
    assert numbers[:50] == list(order(shares, have, 50, seed=5))
    assert numbers != list(order(shares, have, blocks, seed=6))
