"""Work spread over processes, with results in the order of the tasks and nothing left behind when the parent dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from posttrain.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
AHEAD = 2  # tasks waiting for each process: what bounds the memory


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered(
    tasks: Iterable[Task],
    work: Callable[[Task], Result],
    num_proc: int,
    *,
    start: Callable[..., None] | None = None,
    arguments: Sequence[Any] = (),
    preload: Sequence[str] = (),
) -> Iterator[Result]:
    """Yield `work(task)` for each task, in order.

    Args:
        tasks: Read lazily: at most `AHEAD` tasks a process wait at any time.
        work: A module-level function. With one process it is called in this one.
        num_proc: How many processes share the work.
        start: Called once in each process before its first task, with `arguments`.
        arguments: What `start` is given.
        preload: Modules that are imported once and shared by all processes, because they are large.

    Raises:
        UserError: A process was killed from outside, as the system does when memory runs out.
    """
    iterator = iter(tasks)
    first = list(islice(iterator, 2))
    if num_proc == 1 or len(first) < 2:
        if start is not None and first:
            start(*arguments)
        for task in _chained(first, iterator):
            yield work(task)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    pool = ProcessPoolExecutor(num_proc, context, _begin, (start, tuple(arguments)))
    waiting: deque[Future[Result]] = deque()
    try:
        for task in _chained(first, iterator):
            waiting.append(pool.submit(work, task))
            if len(waiting) >= AHEAD * num_proc:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            f"a worker process was killed, most often because memory ran out; use fewer than {num_proc} processes"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _chained(first: list[Task], rest: Iterator[Task]) -> Iterator[Task]:
    yield from first
    yield from rest


def _begin(start: Callable[..., None] | None, arguments: Sequence[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the work in order
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    """End this process when its parent is gone: one that was killed cannot tell its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
