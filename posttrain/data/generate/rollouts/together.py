"""Several requests of one row at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from posttrain.data.generate.requests import Failed

T = TypeVar("T")


async def together(calls: Iterable[Awaitable[T]]) -> list[T | Failed]:
    """Wait for all calls and return what each gives, in their order: its result, or the `Failed` that it raised.

    Any other exception is raised, and so is a cancellation, after the calls still under way were cancelled and have
    ended: none goes on asking for a row that nobody waits for.
    """
    tasks = [asyncio.ensure_future(_caught(call)) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _caught(call: Awaitable[T]) -> T | Failed:
    try:
        return await call
    except Failed as failed:
        return failed
