"""The state of a connection, and the callers that wait for its changes."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from math import inf
from weakref import WeakSet

from tracer_async.client.subscription import Subscription

__all__ = ["ConnectionState", "Status"]


class ConnectionState(StrEnum):
    """The state of a client's connection."""

    CONNECTING = "connecting"
    """The first attempts to connect are running."""
    UP = "up"
    """Connected to the serial port or the bridge. This does not mean that the controller answers."""
    DOWN = "down"
    """The connection is lost, and the client reconnects."""
    CLOSED = "closed"
    """The client is not opened yet, or it is closed."""


class Status:
    """The state of one connection. CLOSED is final. Call its methods in the event loop of the connection."""

    __slots__ = ("_close_waiters", "_watchers", "state")

    def __init__(self) -> None:
        self.state: ConnectionState = ConnectionState.CONNECTING
        # Made when they are needed: there may be thousands of connections.
        self._watchers: WeakSet[Subscription[ConnectionState]] | None = None
        self._close_waiters: set[asyncio.Future[bool]] | None = None

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        return self.state is ConnectionState.CLOSED

    def set(self, state: ConnectionState) -> None:
        """Set `state`, and report a change."""
        if state is self.state or self.closed:
            return
        self.state = state
        watchers = list(self._watchers or ())
        for watcher in watchers:
            watcher.put(state)
        if state is ConnectionState.CLOSED:
            for waiter in self._close_waiters or ():
                _release(waiter, True)
            for watcher in watchers:
                watcher.end()

    def watch(self, watcher: Subscription[ConnectionState]) -> None:
        """Add each change of `state` to *watcher* while it is referenced, and end it when the connection is closed."""
        if self.closed:
            watcher.end()
            return
        if self._watchers is None:
            self._watchers = WeakSet()
        self._watchers.add(watcher)

    async def wait_closed(self, until: float = inf) -> bool:
        """Wait until the state is CLOSED, or until *until* on the event loop's clock. Return whether it is CLOSED."""
        if self.closed:
            return True
        if self._close_waiters is None:
            self._close_waiters = set()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._close_waiters.add(waiter)
        # Each tick of a poll waits here. `asyncio.timeout` would take several times as long, because it cancels.
        timer = loop.call_at(until, _release, waiter, False) if until < inf else None
        try:
            return await waiter
        finally:
            self._close_waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


def _release(waiter: asyncio.Future[bool], closed: bool, /) -> None:
    if not waiter.done():
        waiter.set_result(closed)
