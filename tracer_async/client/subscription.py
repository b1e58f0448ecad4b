"""An async iterator over a bounded queue: received frames, or changes of the connection's state."""

from __future__ import annotations

import asyncio
from typing import Generic, Self, TypeVar

from tracer_async.protocol._numbers import check_whole

__all__ = ["Subscription"]

T = TypeVar("T")


class Subscription(Generic[T]):
    """An async iterator over the items that a client adds from now on.

    It holds *maxsize* items. While it is full, each new item replaces the oldest one. It ends when the client is
    closed. To unsubscribe, drop the last reference to it. Iterating raises RuntimeError in another event loop or thread
    than that of the client.
    """

    def __init__(self, maxsize: int) -> None:
        self._maxsize = check_whole("maxsize", maxsize)
        self._queue: asyncio.Queue[T | None] = asyncio.Queue()
        # Bound here and not by the queue: a queue that has items gives them to any event loop, and one that is empty
        # would wait for a wake-up that never comes from another thread.
        self._loop = _running_loop()
        self._ended = False
        self.dropped: int = 0
        """Number of items that were replaced before they were fetched."""

    def put(self, item: T) -> None:
        """Add *item*. Only the client calls this."""
        if self._queue.qsize() >= self._maxsize:
            self._queue.get_nowait()
            self.dropped += 1
        self._queue.put_nowait(item)

    def end(self) -> None:
        """End the iteration after the items that are queued."""
        if not self._ended:
            self._ended = True
            self._queue.put_nowait(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        loop = _running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError(
                "this iterator belongs to another event loop or thread. Iterate where the client was opened, or call "
                "it through asyncio.run_coroutine_threadsafe()"
            )
        item = await self._queue.get()
        if item is None:
            self._queue.put_nowait(None)  # other tasks may wait for the end too
            raise StopAsyncIteration
        return item


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
