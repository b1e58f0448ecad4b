"""What an output of the gateway is, and the two kinds of bounded queues between the hub and an output.

The hub calls `publish` for each event. That returns at once: a slow output delays neither the polling nor another
output. What an output cannot take is dropped, and counted.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import Protocol

from tracer_async import LoadState
from tracer_async.gateway.events import Controller, ControllerEvent

__all__ = ["Controllers", "EventQueue", "LatestEvents", "Output", "OutputState"]


class Controllers(Protocol):
    """What outputs may ask the hub."""

    def all(self) -> list[Controller]:
        """Return the configured controllers."""

    def latest(self, name: str) -> ControllerEvent | None:
        """Return the last event of a controller; None before the first one. Raises KeyError for an unknown name."""

    async def set_load(self, name: str, on: bool, *, within: float) -> LoadState:
        """Switch the load of a controller, and publish a reading that shows it.

        The command is not sent after *within* seconds. Raises KeyError for an unknown name, ListensOnlyError if the
        controller is not `switchable`, LoadDeadlineError if the switch is not confirmed in that time, and what
        `TracerClient.set_load` raises. `certainly_not_switched` says what an error means.
        """

    def outputs(self) -> list[OutputState]:
        """Return the state of each output."""


class OutputState:
    """What is known about an output: whether it works, why not, since when, and what it dropped."""

    def __init__(self, name: str) -> None:
        self.name = name
        """The output's section in the configuration."""
        self.connected: bool = False
        """Whether the last delivery, or the connection that deliveries need, succeeded."""
        self.error: str | None = None
        """Why it does not work; None if it does, or has not been tried yet."""
        self.since: float = time.time()
        """When the present state began, in seconds since 1970."""
        self.delivered = 0
        """Events delivered."""
        self.dropped = 0
        """Events dropped because the queue was full."""
        self.notice: str | None = None
        """What its owner should know although it works, such as a damaged database that was replaced."""

    def works(self) -> None:
        """Note that a delivery, or the connection, succeeded."""
        if not self.connected:
            self.connected, self.error, self.since = True, None, time.time()

    def fails(self, error: str) -> bool:
        """Note that it failed, and why. Return whether this is news: log it only then."""
        news = self.connected or self.error is None
        if news:
            self.since = time.time()
        self.connected, self.error = False, error
        return news


class Output(ABC):
    """One receiver of all events. The hub runs `run`, and starts it again with growing delays if it raises."""

    def __init__(self, name: str) -> None:
        self.state: OutputState = OutputState(name)

    @abstractmethod
    def publish(self, event: ControllerEvent) -> None:
        """Take an event. Returns at once and never raises."""

    @abstractmethod
    async def run(self) -> None:
        """Deliver events until cancelled. An exception means that the output does not work at present."""

    def add(self, controller: Controller) -> None:  # noqa: B027  # optional
        """Take note of a new controller, before its first event, or of a new title or interval of a known one.

        The default does nothing.
        """

    def remove(self, controller: Controller) -> None:  # noqa: B027  # optional
        """Take note that a controller is not configured any more. The default does nothing."""

    async def reread_files(self) -> None:  # noqa: B027  # optional
        """Read again the files that the configuration names, such as certificates. It is the same configuration.

        Never raises: what cannot be read stays as it is. The default does nothing.
        """

    async def drain(self) -> None:  # noqa: B027  # optional
        """Deliver what is left, at the end of the service, after `run` was cancelled. It has 3 s."""

    def take_left(self) -> list[ControllerEvent]:
        """Remove and return what `drain` could not deliver, for the output that takes the place of this one.

        The default holds nothing.
        """
        return []


class EventQueue:
    """Events in their order. While it is full, the oldest are dropped, and counted in the output's state."""

    def __init__(self, state: OutputState, capacity: int) -> None:
        self._state = state
        self._capacity = capacity
        self._events: deque[ControllerEvent] = deque()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: ControllerEvent) -> None:
        """Add an event."""
        if len(self._events) >= self._capacity:
            self._events.popleft()
            self._state.dropped += 1
        self._events.append(event)
        self._filled.set()

    async def wait(self) -> None:
        """Wait until there is an event."""
        while not self._events:
            self._filled.clear()
            await self._filled.wait()

    def take(self, limit: int) -> list[ControllerEvent]:
        """Remove and return at most *limit* events, the oldest first."""
        return [self._events.popleft() for _ in range(min(limit, len(self._events)))]

    def put_back(self, events: list[ControllerEvent]) -> None:
        """Return events that could not be delivered to the front. The oldest are dropped if there is no room."""
        room = self._capacity - len(self._events)
        kept = events[max(len(events) - room, 0) :] if room > 0 else []
        self._state.dropped += len(events) - len(kept)
        self._events.extendleft(reversed(kept))
        if self._events:
            self._filled.set()


class LatestEvents:
    """The newest event of each controller. An event replaces the one before it, which is not counted as dropped."""

    def __init__(self) -> None:
        self._events: dict[str, ControllerEvent] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: ControllerEvent) -> None:
        """Add an event, in place of one of the same controller that is still waiting."""
        self._events[event.controller.name] = event
        self._filled.set()

    def discard(self, name: str) -> None:
        """Remove what waits of a controller."""
        self._events.pop(name, None)

    async def get(self) -> ControllerEvent:
        """Wait for an event; remove and return the one that waits longest."""
        while not self._events:
            self._filled.clear()
            await self._filled.wait()
        return self._events.pop(next(iter(self._events)))
