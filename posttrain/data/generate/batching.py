"""Work that comes one piece at a time and is cheaper in batches: a queue, and a thread that takes several at once."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from posttrain.data.generate.loops import call_in
from posttrain.data.generate.requests import Transient

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW = 0.02  # seconds that an idle thread waits for company to the first piece
_LAST_WAIT = 10.0  # seconds that the end of the interpreter waits for a batch to stop


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    """A piece of work, and who waits for it."""

    item: Item
    size: int
    group: Hashable
    future: asyncio.Future[Result]
    loop: asyncio.AbstractEventLoop


class Batcher(Generic[Item, Result]):
    """Gathers pieces of work from coroutines, in any number of event loops, into batches for one thread.

    A batch is the piece that has waited longest and those of its group that are nearest to it in size, so that little
    is padded and nothing waits for ever.

    Args:
        work: Called in the thread with a batch; returns a result, or an exception, for each piece, in order. What it
            raises goes to every piece of the batch.
        name: Of the thread.
        batch_size: The most pieces in a batch.
        too_big: Exceptions of `work` that say that a batch was too big: its halves are tried one after the other.
        window: Seconds that an idle thread waits for company to the first piece.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result | Exception]],
        *,
        name: str,
        batch_size: int,
        too_big: tuple[type[Exception], ...] = (),
        window: float = WINDOW,
    ) -> None:
        self._work = work
        self._name = name
        self._batch_size = batch_size
        self._too_big = too_big
        self._window = window
        self._waiting: list[_Waiting[Item, Result]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def closing(self) -> bool:
        """Whether the thread has been told to stop; long work looks at it and gives up."""
        return self._closing

    async def submit(self, item: Item, *, size: int, group: Hashable = None) -> Result:
        """Wait for the result of one piece of work.

        Args:
            item: What `work` is given.
            size: How long it is; a batch holds pieces of similar sizes.
            group: A batch holds pieces of one group.

        Raises:
            Transient: The batcher was closed before there was a result.
        """
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Item, Result] = _Waiting(item, size, group, loop.create_future(), loop)
        with self._changed:
            if self._closing:
                raise Transient("closed")
            self._waiting.append(waiting)
            self._start()
            self._changed.notify()
        return await waiting.future

    async def close(self) -> None:
        """Stop after the batch in hand, without blocking the event loop; what still waits gets `Transient`."""
        await asyncio.to_thread(self.stop)

    def stop(self, timeout: float | None = None) -> None:
        """Stop after the batch in hand, and wait for that, at most `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _start(self) -> None:
        if self._thread is not None:
            return
        # A daemon, so that an interrupted process does not wait for a batch before it may end; but one that still
        # computes while the interpreter is taken down can crash it, so at the very end it is told to stop.
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()
        this = weakref.ref(self)
        atexit.register(lambda: batcher.stop(_LAST_WAIT) if (batcher := this()) is not None else None)

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            try:
                results = self._in_parts(batch)
            except Exception as error:  # noqa: BLE001  # it is raised where the results are awaited
                results = [error] * len(batch)
            for waiting, result in zip(batch, results, strict=True):
                _deliver(waiting, result)
        for waiting in self._waiting:
            _deliver(waiting, Transient("closed"))
        self._waiting.clear()

    def _next(self) -> list[_Waiting[Item, Result]] | None:
        """Return the next batch, once there is one; None when the batcher is closing."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._closing or self._waiting)
                end = time.monotonic() + self._window
                self._changed.wait_for(
                    lambda: self._closing or len(self._waiting) >= self._batch_size, end - time.monotonic()
                )
                if self._closing:
                    return None
                self._waiting = [waiting for waiting in self._waiting if not waiting.future.cancelled()]
                if self._waiting:
                    break
            first, *others = self._waiting
            alike = [waiting for waiting in others if waiting.group == first.group]
            alike.sort(key=lambda waiting: abs(waiting.size - first.size))
            batch = [first, *alike[: self._batch_size - 1]]
            self._waiting = [waiting for waiting in self._waiting if waiting not in batch]
            return batch

    def _in_parts(self, batch: list[_Waiting[Item, Result]]) -> list[Result | Exception]:
        try:
            return list(self._work([waiting.item for waiting in batch]))
        except self._too_big as error:
            if len(batch) == 1:
                return [error]
        # Outside the handler: the exception holds on to the frames whose memory is wanted back.
        middle = len(batch) // 2
        return [*self._in_parts(batch[:middle]), *self._in_parts(batch[middle:])]


def _deliver(waiting: _Waiting[Item, Result], result: Result | Exception) -> None:
    def settle() -> None:
        if waiting.future.done():  # cancelled meanwhile
            return
        if isinstance(result, Exception):
            waiting.future.set_exception(result)
        else:
            waiting.future.set_result(result)

    call_in(waiting.loop, settle)
