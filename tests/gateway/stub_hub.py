"""Events made by hand, and a hub that holds them, for tests of outputs."""

from __future__ import annotations

import math
import time

from tracer_async import LoadState, Reading, RealtimeData, ResponseTimeoutError, SessionStats, TracerError
from tracer_async.gateway._clock import uptime
from tracer_async.gateway.events import Controller, ControllerEvent, EnergyTotals
from tracer_async.gateway.output import OutputState
from tracer_async.simulator import SimulatedTracer

NO_STATS = SessionStats(*[0] * len(SessionStats._fields))


def controller(name: str = "roof", *, title: str | None = None, interval: float = 5.0) -> Controller:
    return Controller(name, title or name, name, interval)


def data(**changes: object) -> RealtimeData:
    """A measurement of a simulated controller, with some values replaced."""
    return SimulatedTracer().realtime()._replace(**changes)  # type: ignore[arg-type]


def event(
    of: Controller,
    measured: RealtimeData | None,
    *,
    at: float | None = None,
    monotonic: float | None = None,
    error: TracerError | None = None,
    energy: EnergyTotals | None = None,
    stats: SessionStats = NO_STATS,
    age: float = 0.0,
) -> ControllerEvent:
    """An event that arrives now, unless told otherwise. Without a measurement it is a timeout."""
    at = time.time() if at is None else at
    if measured is None and error is None:
        error = ResponseTimeoutError("sim:", 0xA0, 3.0, 3)
    return ControllerEvent(
        of,
        Reading(at, measured, error, age=math.inf if measured is None else age),
        since=at,
        monotonic=uptime() if monotonic is None else monotonic,
        energy=energy or EnergyTotals(),
        stats=stats,
    )


class StubHub:
    """Answers what an output asks of the hub with the events that a test gave it."""

    def __init__(self, *controllers: Controller) -> None:
        self.events: dict[str, ControllerEvent | None] = dict.fromkeys(each.name for each in controllers)
        self.controllers = list(controllers)
        self.states: list[OutputState] = []
        self.switched: list[tuple[str, bool]] = []
        self.deadlines: list[float] = []

    def put(self, event: ControllerEvent) -> None:
        self.events[event.controller.name] = event

    def all(self) -> list[Controller]:
        return self.controllers

    def latest(self, name: str) -> ControllerEvent | None:
        return self.events[name]

    async def set_load(self, name: str, on: bool, *, within: float) -> LoadState:
        self.switched.append((name, on))
        self.deadlines.append(within)
        return LoadState(on)

    def outputs(self) -> list[OutputState]:
        return self.states
