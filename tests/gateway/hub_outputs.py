"""Outputs for tests of the hub: they note what they are told, and fail in ways of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tracer_async.gateway.events import Controller, ControllerEvent
from tracer_async.gateway.output import Output


class RecordingOutput(Output):
    """Notes everything that it is told, in order."""

    def __init__(self, name: str = "recording") -> None:
        super().__init__(name)
        self.told: list[tuple[str, Controller]] = []
        self.events: list[ControllerEvent] = []
        self.drained_with: int | None = None
        self._arrived = asyncio.Event()

    def publish(self, event: ControllerEvent) -> None:
        self.events.append(event)
        self._arrived.set()

    def add(self, controller: Controller) -> None:
        self.told.append(("add", controller))

    def remove(self, controller: Controller) -> None:
        self.told.append(("remove", controller))

    async def run(self) -> None:
        self.state.works()
        await asyncio.Event().wait()

    async def drain(self) -> None:
        self.drained_with = len(self.events)

    async def until(self, condition: Callable[[list[ControllerEvent]], object], *, seconds: float = 20) -> None:
        """Wait until *condition* holds for the events so far."""
        async with asyncio.timeout(seconds):
            while not condition(self.events):
                self._arrived.clear()
                await self._arrived.wait()

    async def next_event(self) -> ControllerEvent:
        """Wait for one event more than there are now."""
        number = len(self.events)
        await self.until(lambda events: len(events) > number)
        return self.events[number]


class RaisingOutput(RecordingOutput):
    """Breaks its contract: whatever the hub tells it raises."""

    def publish(self, event: ControllerEvent) -> None:
        raise RuntimeError("publish")

    def add(self, controller: Controller) -> None:
        raise RuntimeError("add")

    def remove(self, controller: Controller) -> None:
        raise RuntimeError("remove")


class FailingOutput(RecordingOutput):
    """Its `run` calls a function, and notes when."""

    def __init__(self, end: Callable[[], None], name: str = "failing") -> None:
        super().__init__(name)
        self.starts: list[float] = []
        self._end = end

    async def run(self) -> None:
        self.starts.append(asyncio.get_running_loop().time())
        self._end()


class StubbornOutput(RecordingOutput):
    """Does not end when it is cancelled, until it is released."""

    def __init__(self, *, run: bool, drain: bool) -> None:
        super().__init__("stubborn")
        self._in_run = run
        self._in_drain = drain
        self.released = asyncio.Event()

    async def run(self) -> None:
        await self._resist(self._in_run)

    async def drain(self) -> None:
        await super().drain()
        await self._resist(self._in_drain)

    async def _resist(self, stubborn: bool) -> None:
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                if not stubborn:
                    raise
