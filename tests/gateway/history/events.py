"""Events for the history, and what must be made of them, computed in plain Python."""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from decimal import ROUND_CEILING, Decimal
from statistics import fmean

import pytest

from tracer_async import Reading, RealtimeData, ResponseTimeoutError, SessionStats
from tracer_async.gateway.events import Controller, ControllerEvent, EnergyTotals
from tracer_async.gateway.history.query import Point
from tracer_async.gateway.history.store import HistoryOutput

ROOF = Controller("roof", "Roof", "roof-1", 5.0)
SHED = Controller("shed", "Shed", "shed-1", 5.0)

NO_STATS = SessionStats(*[0] * len(SessionStats._fields))

# A whole hour, and a whole day in UTC.
START = 1_767_225_600.0


def values(seed: int) -> RealtimeData:
    """Random measurements, as bytes that a controller can send."""
    rng = random.Random(seed)
    data = bytearray(rng.randbytes(24))
    for offset in (*range(12, 15), *range(16, 20)):  # the flags
        data[offset] &= 1
    return RealtimeData.from_bytes(bytes(data))


def age(seed: int) -> float:
    """A random age, as far as that of a late reply. Some are unknown, 0, or less than the clock can show."""
    special = {0: math.inf, 1: 0.0, 2: 1e-9}
    return special.get(seed % 10, random.Random(f"age {seed}").uniform(0.0, 11.0))


def shown_age(of: ControllerEvent) -> float | None:
    """The age as an output shows it: in seconds, rounded up to a millisecond. None is unknown."""
    if not math.isfinite(of.reading.age):
        return None
    return float(Decimal(of.reading.age).quantize(Decimal("0.001"), ROUND_CEILING))


def event(
    time: float,
    data: RealtimeData | None = None,
    controller: Controller = ROOF,
    energy: EnergyTotals = EnergyTotals(),  # noqa: B008  # frozen
    age: float = math.inf,
) -> ControllerEvent:
    """An event with *data*, or with an error."""
    error = None if data is not None else ResponseTimeoutError("sim:", 0xA0, 1.0, 1)
    reading = Reading(time, data, error, age)
    return ControllerEvent(controller, reading, since=time, monotonic=time, energy=energy, stats=NO_STATS)


def events(
    count: int, start: float = START, interval: float = 5.0, controller: Controller = ROOF
) -> list[ControllerEvent]:
    """Readings of one controller."""
    first = round(start)
    return [event(start + n * interval, values(first + n), controller, age=age(first + n)) for n in range(count)]


def expected(of: Iterable[ControllerEvent], step: float, *, offset: float = 0.0) -> list[Point]:
    """The points of these events. The first of several readings with the same time counts."""
    width, shift = round(step * 1000), round(offset * 1000)
    steps: dict[int, dict[int, RealtimeData]] = defaultdict(dict)
    for one in of:
        if one.reading.data is not None:
            time = round(one.reading.time * 1000)
            steps[time - (time + shift) % width].setdefault(time, one.reading.data)
    return [Point(time / 1000, *_columns(list(readings.values()))) for time, readings in sorted(steps.items())]


def _columns(readings: list[RealtimeData]) -> Iterable[tuple[float, float, float]]:
    for name in ("battery_voltage", "pv_voltage", "charge_power", "load_power", "battery_temperature"):
        numbers = [float(getattr(data, name)) for data in readings]
        yield min(numbers), fmean(numbers), max(numbers)


def assert_points(found: list[Point], wanted: list[Point]) -> None:
    """Compare points. The database computes with whole numbers, so only the last digits of a float differ."""
    assert [point.time for point in found] == [point.time for point in wanted]
    for one, other in zip(found, wanted, strict=True):
        for left, right in zip(one[1:], other[1:], strict=True):
            assert left == pytest.approx(right, rel=1e-9, abs=1e-9)


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Wait for a condition."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(output: HistoryOutput) -> AsyncIterator[HistoryOutput]:
    """Run an output; stop it as the hub does."""
    task = asyncio.create_task(output.run())
    try:
        yield output
    finally:
        task.cancel()
        await asyncio.wait([task])
        await output.drain()


async def deliver(output: HistoryOutput, batch: Iterable[ControllerEvent]) -> None:
    """Publish events, and wait until they are in the database."""
    wanted = output.state.delivered
    for one in batch:
        output.publish(one)
        wanted += 1
    await until(lambda: output.state.delivered >= wanted)


class Clock:
    """A wall clock and a monotonic clock that only the test moves."""

    def __init__(self, wall: float = START) -> None:
        self.wall_time = wall
        self.monotonic_time = 1000.0

    def wall(self) -> float:
        return self.wall_time

    def monotonic(self) -> float:
        return self.monotonic_time

    def advance(self, seconds: float) -> None:
        self.wall_time += seconds
        self.monotonic_time += seconds
