"""An event loop that is run by hand and whose time is a variable: no selector, no sleeping, and quick to make."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import contextmanager
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HandLoop"]

T = TypeVar("T")


class HandLoop:
    """As much of `asyncio.AbstractEventLoop` as futures, tasks and the line ask for.

    What a callback raises is raised by whoever runs the loop, and so is what asyncio would only have logged.
    """

    def __init__(self, now: float) -> None:
        self._now = now
        self._ready: deque[asyncio.Handle] = deque()
        self._scheduled: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._trouble: list[dict[str, Any]] = []

    # What asyncio calls.

    def time(self) -> float:
        """The time is what `advance` has made it."""
        return self._now

    def get_debug(self) -> bool:
        """Never in debug mode."""
        return False

    def create_future(self) -> asyncio.Future[Any]:
        """See `asyncio.loop.create_future`."""
        return asyncio.Future(loop=self._as_loop)

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """See `asyncio.loop.call_soon`."""
        handle = asyncio.Handle(callback, args, self._as_loop, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See `asyncio.loop.call_at`."""
        handle = asyncio.TimerHandle(when, callback, args, self._as_loop, context)
        self._count += 1
        heappush(self._scheduled, (when, self._count, handle))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what asyncio reports, for `run_ready` to raise."""
        self._trouble.append(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._scheduled = [entry for entry in self._scheduled if entry[2] is not handle]
        heapify(self._scheduled)

    # What runs it.

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be the running loop within the block."""
        asyncio._set_running_loop(self._as_loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def task(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task; `run_ready` takes its first step."""
        return asyncio.Task(coroutine, loop=self._as_loop)

    @property
    def timers(self) -> list[float]:
        """When the timers are due that were not cancelled, the next one first."""
        return sorted(when for when, _, _ in self._scheduled)

    def run_ready(self) -> None:
        """Run callbacks until none is ready."""
        while self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()
            self._raise_trouble()
        self._raise_trouble()

    def advance(self, until: float) -> None:
        """Let the time become *until*, and run on the way what becomes due."""
        for _ in range(1000):
            if not self._scheduled or self._scheduled[0][0] > until:
                break
            when, _, timer = heappop(self._scheduled)
            self._now = max(self._now, when)
            timer._run()
            self.run_ready()
        else:
            raise AssertionError(f"a thousand timers within {until - self._now} s")
        self._now = max(self._now, until)

    def _raise_trouble(self) -> None:
        if self._trouble:
            context = self._trouble.pop()
            raise AssertionError(context["message"]) from context.get("exception")

    @property
    def _as_loop(self) -> asyncio.AbstractEventLoop:
        return cast("asyncio.AbstractEventLoop", self)
