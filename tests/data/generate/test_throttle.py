"""How many requests are let out at once, by a clock that is turned by hand."""

from __future__ import annotations

import asyncio

import pytest

from posttrain.data.generate.draining import Draining
from posttrain.data.generate.throttle import DECREASE, FIRST, LONGEST_PAUSE, TOLERANCE, Throttle


class Clock:
    """Time that passes only while someone sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


async def a_round(throttle: Throttle, seconds: float = 1.0, tokens: int = 84, overload: int = 0) -> None:
    """Send as many requests as the limit allows; `overload` of them are refused and the others answered."""
    tickets = [await throttle.acquire() for _ in range(throttle.limit)]
    for number, ticket in enumerate(tickets):
        if number < overload:
            throttle.overloaded(ticket)
        else:
            throttle.answered(seconds, tokens)
        throttle.release()


def test_it_doubles_until_the_server_pushes_back_and_then_grows_slowly() -> None:
    async def run() -> None:
        throttle = Throttle(200)
        limits = [throttle.limit]
        for overload in (0, 0, 1, 0, 0):
            await a_round(throttle, overload=overload)
            limits.append(throttle.limit)
        assert limits[0] == FIRST
        assert limits[1] == 2 * limits[0]
        assert limits[2] == 2 * limits[1]
        assert DECREASE * limits[2] - 1 <= limits[3] <= DECREASE * limits[2] + 15
        assert limits[3] < limits[4] <= limits[3] + 15
        assert limits[4] < limits[5] <= limits[4] + 15

    asyncio.run(run())


def test_many_refusals_of_one_round_lower_it_once_and_it_stays_between_one_and_the_maximum() -> None:
    async def run() -> None:
        throttle = Throttle(20)
        await a_round(throttle, overload=FIRST)
        assert throttle.limit == int(FIRST * DECREASE)
        for _ in range(20):
            await a_round(throttle, overload=throttle.limit)
        assert throttle.limit == 1
        for _ in range(60):
            await a_round(throttle)
        assert throttle.limit == 20
        assert Throttle(3).limit == 3

    asyncio.run(run())


def test_no_more_than_the_limit_are_out_and_all_get_their_turn_in_order() -> None:
    async def run() -> None:
        throttle = Throttle(5)
        order: list[int] = []
        most = 0

        async def ask(number: int) -> None:
            nonlocal most
            ticket = await throttle.acquire()
            order.append(number)
            most = max(most, throttle.in_flight)
            await asyncio.sleep(0)
            if number % 7 == 0:
                throttle.overloaded(ticket)
            throttle.release()

        await asyncio.gather(*(ask(number) for number in range(200)))
        assert order == list(range(200))
        assert most == 5
        assert throttle.in_flight == 0

    asyncio.run(run())


def test_latency_lowers_it_but_not_below_the_limit_of_the_best_round() -> None:
    async def run() -> None:
        throttle = Throttle(1000)
        for _ in range(5):
            await a_round(throttle, seconds=1.0)
        high = throttle.limit
        await a_round(throttle, seconds=TOLERANCE * 0.8)  # slower, but within what batching explains
        assert throttle.limit > high
        for _ in range(3):
            await a_round(throttle, seconds=TOLERANCE * 3)
        assert throttle.limit < high
        for _ in range(30):
            await a_round(throttle, seconds=TOLERANCE * 3)
        assert throttle.limit >= FIRST

    asyncio.run(run())


def test_long_answers_do_not_look_slow() -> None:
    async def run(tokens: int, seconds: float) -> int:
        throttle = Throttle(100)
        await a_round(throttle, seconds=1.0, tokens=100)
        for _ in range(4):
            await a_round(throttle, seconds=seconds, tokens=tokens)
        return throttle.limit

    assert asyncio.run(run(3000, 30.0)) == 100
    assert asyncio.run(run(100, 30.0)) < 100


def test_it_does_not_grow_where_it_is_not_what_holds_requests_back() -> None:
    async def run() -> None:
        throttle = Throttle(100)
        for _ in range(200):
            await throttle.acquire()
            throttle.answered(1.0, 10)
            throttle.release()
        assert throttle.limit == FIRST

    asyncio.run(run())


def test_a_pause_holds_everyone_until_it_is_over() -> None:
    async def run() -> None:
        clock = Clock()
        throttle = Throttle(10, clock=clock, sleep=clock.sleep)
        await throttle.acquire()
        throttle.pause(30)
        throttle.pause(5)
        throttle.release()
        times: list[float] = []

        async def ask() -> None:
            await throttle.acquire()
            times.append(clock.now)
            throttle.release()

        await asyncio.gather(*(ask() for _ in range(25)))
        assert times == [130.0] * 25
        assert clock.slept == [30.0]
        throttle.pause(1e9)
        await asyncio.sleep(0)
        assert clock.slept[-1] == LONGEST_PAUSE

    asyncio.run(run())


def test_stopping_turns_away_those_that_wait_and_those_to_come() -> None:
    async def run() -> None:
        throttle = Throttle(1)
        await throttle.acquire()
        waiting = [asyncio.create_task(throttle.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        throttle.pause(1000)
        throttle.stop()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, Draining) for result in results)
        with pytest.raises(Draining):
            await throttle.acquire()
        throttle.release()

    asyncio.run(run())


def test_a_cancelled_wait_loses_no_turn() -> None:
    async def run() -> None:
        throttle = Throttle(1)
        await throttle.acquire()
        waiting = [asyncio.create_task(throttle.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # while it waits
        throttle.release()  # grants the turn to the second
        waiting[1].cancel()  # after it was granted, before it ran
        await asyncio.wait_for(waiting[2], 1)
        assert throttle.in_flight == 1

    asyncio.run(run())
