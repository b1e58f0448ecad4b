"""Roll-ups against a computation in plain Python, for any order of batches, roll-ups and times."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.history.databases import Sqlite
from tests.gateway.history.events import START, Clock, assert_points, event, expected, values
from tracer_async.gateway.events import ControllerEvent
from tracer_async.gateway.history.batch import write
from tracer_async.gateway.history.database import Database
from tracer_async.gateway.history.reader import DatabaseReader
from tracer_async.gateway.history.rollup import ClockWatch, reclaim, roll_up
from tracer_async.gateway.history.schema import SLOT

# Many in few five minutes, some on the edges of them, and equal ones.
times = st.one_of(
    st.integers(0, 20).map(lambda number: START + number * 0.5),
    st.integers(0, 40).map(lambda slot: START + slot * 300.0),
    st.integers(0, 40).map(lambda slot: START + slot * 300.0 - 0.001),
    st.floats(0, 3 * 3600.0).map(lambda time: START + time),
)
readings = st.builds(lambda time, seed: event(time, values(seed)), times, st.integers(0, 1000))
batches = st.lists(st.lists(readings, max_size=30), max_size=6)


@given(batches, st.integers(0, 6), st.sampled_from([60.0, 300.0, 1500.0, 3600.0, 86_400.0]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_rolled_up_rows_and_series_are_those_of_all_readings(
    batches: list[list[ControllerEvent]], rolled_up: int, step: float
) -> None:
    """Roll-ups come after the first batches, and at the end; before that one, the series is a mixture."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Sqlite(Path(folder)), batches, rolled_up, step))


async def check(sqlite: Sqlite, batches: list[list[ControllerEvent]], rolled_up: int, step: float) -> None:
    database = Database(sqlite.config(), sqlite.directory)
    reader = DatabaseReader(database, None, lambda: None)
    everything = [one for batch in batches for one in batch]
    # Multiples of one day in local time begin at other times than in UTC.
    offset = reader._phase(START - 86_400) / 1000
    try:
        connection = await database.writer()
        for number, batch in enumerate(batches):
            async with connection.begin():
                await write(connection, batch)
            if number < rolled_up:
                async for _ in roll_up(connection):
                    pass
        for _ in range(2):
            series = await reader.series("roof-1", START - 86_400, START + 86_400, step)
            assert series.step == max(step, 120.0)
            assert_points(series.points, expected(everything, series.step, offset=offset))
            async for _ in roll_up(connection):
                pass
        assert sqlite.count("tracer_pending") == 0
        for table, length in (("tracer_five_minutes", SLOT), ("tracer_hours", 12 * SLOT)):
            assert sqlite.query(f"SELECT time, count FROM {table} ORDER BY time") == counts(everything, length)
            averages = sqlite.query(f"SELECT battery_voltage_sum / 100.0 / count FROM {table} ORDER BY time")
            for (average,), point in zip(averages, expected(everything, length / 1000), strict=True):
                assert abs(average - point.battery_voltage[1]) < 1e-9
    finally:
        await database.close()


def counts(events: Iterable[ControllerEvent], length: int) -> list[tuple[int, int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for one in events:
        time = round(one.reading.time * 1000)
        found[time // length * length].add(time)
    return sorted((time, len(of)) for time, of in found.items())


@given(st.lists(st.tuples(st.floats(0, 3600), st.sampled_from([0.0, 0.0, 0.0, 10.0, -10.0, 1e9, -1e9]))))
def test_a_step_of_the_clock_is_seen_and_slow_corrections_are_not(changes: list[tuple[float, float]]) -> None:
    clock = Clock()
    watch = ClockWatch(clock.wall, clock.monotonic)
    stepped = clock.monotonic_time
    for seconds, jump in changes:
        clock.advance(seconds)
        clock.wall_time += 0.0005 * seconds + jump  # NTP corrects at most 0.0005 s a second
        if jump:
            stepped = clock.monotonic_time
        assert watch.steady_seconds() == clock.monotonic_time - stepped


async def test_a_file_that_is_mostly_unused_becomes_shorter(sqlite: Sqlite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer_async.gateway.history.rollup._PAGES", 100)
    database = Database(sqlite.config(), sqlite.directory)
    connection = await database.writer()
    for table in ("tracer_readings", "tracer_pending"):
        assert sqlite.count(table) == 0
    async with connection.begin():
        await connection.exec_driver_sql("CREATE TABLE ballast AS SELECT randomblob(1000000) AS data")
    before = sqlite.query("PRAGMA page_count")[0][0]
    async with connection.begin():
        await connection.exec_driver_sql("DROP TABLE ballast")
    async for _ in reclaim(connection):
        pass
    assert before > 200
    assert sqlite.query("PRAGMA page_count")[0][0] < 110
    await database.close()
    assert sqlite.file.stat().st_size < 110 * 4096
