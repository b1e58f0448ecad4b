"""The ticks of a poll, on a clock that the test controls."""

from __future__ import annotations

import math

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.peer import READING
from tracer_async import Reading, ResponseTimeoutError, TracerClient, poll
from tracer_async.errors import LinkClosedError


class Clock:
    """A clock that changes only when the test or a sleep advances it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(anyio, "current_time", lambda: self.now)
        monkeypatch.setattr(anyio, "sleep_until", self.sleep_until)

    async def sleep_until(self, when: float) -> None:
        assert when >= self.now
        self.now = when


class Controller:
    """Answers each read after the next duration in the list. None is a read that fails. After the list it is closed."""

    def __init__(self, clock: Clock, durations: list[float | None]) -> None:
        self.clock = clock
        self.durations = list(durations)
        self.asked: list[float] = []

    async def read(self) -> Reading:
        if not self.durations:
            raise LinkClosedError("sim:", "the client is closed")
        self.asked.append(self.clock.now)
        duration = self.durations.pop(0)
        if duration is None:
            raise ResponseTimeoutError("sim:", 0xA0, 1.0, 1)
        self.clock.now += duration
        return Reading(0.0, READING)


@given(st.lists(st.none() | st.floats(0, 0.999), min_size=1, max_size=50), st.sampled_from([0.1, 1.0, 1 / 3, 60.0]))
async def test_poll_ticks_do_not_drift(durations: list[float | None], interval: float) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = Clock(monkeypatch)
        controller = Controller(clock, [None if d is None else d * interval for d in durations])
        readings = [reading async for reading in poll(controller, interval)]
        assert controller.asked == pytest.approx([1000.0 + interval * tick for tick in range(len(durations))])
        assert [reading.ok for reading in readings] == [duration is not None for duration in durations]
        assert all(reading.ok or reading.age == math.inf for reading in readings)
        assert not any(reading.skipped for reading in readings)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30))
async def test_missed_poll_ticks_are_skipped_and_counted(durations: list[float]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = Clock(monkeypatch)
        controller = Controller(clock, [*durations])
        readings = [reading async for reading in poll(controller, 1.0)]
        ticks = [asked - 1000.0 for asked in controller.asked]
        # Each reading starts at the next whole tick. The skipped ticks are counted, so that no tick is lost.
        assert ticks == pytest.approx([round(tick) for tick in ticks])
        for before, after, duration, reading in zip(ticks, ticks[1:], durations, readings[1:], strict=False):
            assert after - before == pytest.approx(max(1, math.ceil(duration - 1e-6)))
            assert reading.skipped == round(after - before) - 1


async def test_a_slow_consumer_skips_ticks_and_gets_fresh_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    controller = Controller(clock, [0.0] * 3)
    skipped = []
    async for reading in poll(controller, 1.0):
        skipped.append(reading.skipped)
        clock.now += 2.5
    assert skipped == [0, 2, 2]
    assert controller.asked == [1000.0, 1003.0, 1006.0]


async def test_a_failed_reading_has_its_error_and_the_poll_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [reading async for reading in poll(Controller(Clock(monkeypatch), [0.0, None, 0.0]), 1.0)]
    assert [reading.ok for reading in readings] == [True, False, True]
    assert isinstance(readings[1].error, ResponseTimeoutError)
    assert readings[1].data is None
    assert readings[1].time > 0


@pytest.mark.parametrize("interval", [0, -1, math.nan, math.inf])
async def test_an_interval_that_is_not_positive_and_finite_is_refused(interval: float) -> None:
    async with TracerClient("sim:") as tracer:
        with pytest.raises(ValueError, match="interval"):
            tracer.poll(interval)
