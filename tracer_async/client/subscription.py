"""A bounded asyncio queue to iterate over, for those who want to see what passes by."""

from __future__ import annotations

import asyncio
from typing import Generic, Self, TypeVar

from tracer_async.protocol._numbers import check_whole

__all__ = ["Subscription"]

T = TypeVar("T")


class Subscription(Generic[T]):
    """An async iterator over what is put in from now on; when it is full, the oldest item gives way.

    It ends when the client is closed. Nothing has to be done to unsubscribe: a subscription that nobody holds is gone.
    """

    def __init__(self, maxsize: int) -> None:
        self._maxsize = check_whole("maxsize", maxsize)
        self._queue: asyncio.Queue[T | None] = asyncio.Queue()
        self._ended = False
        self.dropped: int = 0
        """How many items gave way because they were not fetched in time."""

    def put(self, item: T) -> None:
        """Add *item*; for the client that the subscription belongs to."""
        if self._queue.qsize() >= self._maxsize:
            self._queue.get_nowait()
            self.dropped += 1
        self._queue.put_nowait(item)

    def end(self) -> None:
        """Let the iteration end behind what is queued already."""
        if not self._ended:
            self._ended = True
            self._queue.put_nowait(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        item = await self._queue.get()
        if item is None:
            self._queue.put_nowait(None)  # for whoever else iterates, and for the next call
            raise StopAsyncIteration
        return item
