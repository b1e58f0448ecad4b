"""What the history keeps and answers, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.gateway.history.databases import PASSWORD, TestDatabase
from tests.gateway.history.events import (
    SHED,
    START,
    Clock,
    assert_points,
    deliver,
    event,
    events,
    expected,
    running,
    shown_age,
    until,
    values,
)
from tracer_async.gateway.events import EnergyTotals
from tracer_async.gateway.history.export import Kind, export
from tracer_async.gateway.history.query import MAX_POINTS, DayEnergy
from tracer_async.gateway.history.rollup import delete_old
from tracer_async.gateway.history.schema import VERSION
from tracer_async.gateway.history.store import HistoryOutput

HOUR, DAY = 3600.0, 86_400.0
ALL = {"start": datetime(1970, 1, 1, tzinfo=UTC), "end": datetime(9999, 1, 1, tzinfo=UTC)}


def output_of(database: TestDatabase, clock: Clock | None = None, **keys: object) -> HistoryOutput:
    clock = clock or Clock()
    return HistoryOutput(
        database.config(**keys),  # type: ignore[arg-type]
        directory=database.directory,
        zone=UTC,
        wall=clock.wall,
        monotonic=clock.monotonic,
    )


async def maintain(output: HistoryOutput, clock: Clock, seconds: float = HOUR + 1) -> None:
    """Let the hourly roll-up and deletion run, and wait for its end."""
    clock.advance(seconds)
    # A batch is written before it begins, and the one after that only when it has ended.
    await deliver(output, [event(START)])
    await deliver(output, [event(START)])


async def test_readings_are_stored_exactly_as_they_came(database: TestDatabase) -> None:
    batch = [*events(600), *events(600, controller=SHED)]
    async with running(output_of(database)) as output:
        await deliver(output, batch)
        assert (output.state.connected, output.state.error, output.state.dropped) == (True, None, 0)
    rows = database.query("SELECT battery_voltage, load_current, time FROM tracer_readings ORDER BY controller, time")
    hundredths = [
        (round(one.reading.data.battery_voltage * 100), round(one.reading.data.load_current * 100))
        for one in batch
        if one.reading.data is not None
    ]
    assert [row[:2] for row in rows] == hundredths
    assert [row[2] for row in rows] == [round(one.reading.time * 1000) for one in batch]
    exported = [
        row
        async for chunk in export(database.config(), database.directory, "shed-1", kind=Kind.READINGS, **ALL)
        for row in chunk
    ]
    assert exported == [
        {"time": datetime.fromtimestamp(one.reading.time, UTC), "age": shown_age(one), **one.reading.data.to_dict()}
        for one in batch[600:]
        if one.reading.data is not None
    ]


async def test_the_age_is_stored_rounded_up_and_an_unknown_one_is_null(database: TestDatabase) -> None:
    ages = [0.0, 1e-9, 0.02, 0.0200001, 0.1 + 0.2, 10.2499, math.inf, math.nan]
    async with running(output_of(database)) as output:
        await deliver(output, [event(START + n, values(n), age=age) for n, age in enumerate(ages)])
    stored = database.query("SELECT age FROM tracer_readings WHERE age IS NOT NULL ORDER BY time")
    assert stored == [(0,), (1,), (20,), (21,), (301,), (10_250,)]
    unknown = database.query("SELECT time FROM tracer_readings WHERE age IS NULL ORDER BY time")
    assert unknown == [(round((START + n) * 1000),) for n in (6, 7)]


async def test_an_error_and_a_gap_have_no_point(database: TestDatabase) -> None:
    batch = [event(START, values(1)), event(START + 60), event(START + 7200, values(2))]
    async with running(output_of(database)) as output:
        await deliver(output, batch)
        series = await output.series("roof-1", START, START + 3 * HOUR, 60.0)
        assert_points(series.points, expected(batch, 60.0))
        assert [point.time - START for point in series.points] == [0.0, 7200.0]
        assert (await output.series("shed-1", START, START + HOUR)).points == []
    assert database.count() == 2


async def test_a_duplicate_time_loses_no_other_reading(database: TestDatabase) -> None:
    first, second = events(100), events(120)
    changed = [event(START + 5, values(77)), *second[50:]]
    async with running(output_of(database)) as output:
        await deliver(output, first)
        await deliver(output, changed)
        series = await output.series("roof-1", START, START + 600, 5.0)
    assert_points(series.points, expected([*first, *changed], 5.0))
    assert database.count() == 120


async def test_the_energy_of_a_day_never_becomes_less(database: TestDatabase) -> None:
    def of_day(day: int, charge: float, load: float) -> EnergyTotals:
        return EnergyTotals(day=date(2026, 1, day), charge_today=charge, load_today=load)

    async with running(output_of(database)) as output:
        await deliver(
            output, [event(START, values(1), energy=of_day(1, 5.0, 7.5)), event(START + 1, energy=of_day(1, 6.0, 1.0))]
        )
        await deliver(output, [event(START + 2, values(1), energy=of_day(1, 4.0, 8.0))])
        await deliver(output, [event(START + DAY, values(1), energy=of_day(2, 0.25, 0.0)), event(START)])
        assert await output.days("roof-1", date(2025, 1, 1), date(2026, 1, 2)) == [
            DayEnergy(date(2026, 1, 1), 6.0, 8.0),
            DayEnergy(date(2026, 1, 2), 0.25, 0.0),
        ]
        assert await output.days("roof-1", date(2026, 1, 2), date(2026, 1, 2)) == [
            DayEnergy(date(2026, 1, 2), 0.25, 0.0)
        ]
        assert await output.days("shed-1", date(2025, 1, 1), date(2027, 1, 1)) == []
    assert database.query("SELECT day, charge, load FROM tracer_days ORDER BY day") == [
        ("2026-01-01", 6.0, 8.0),
        ("2026-01-02", 0.25, 0.0),
    ]


async def test_what_was_counted_just_before_midnight_is_in_the_row_of_its_day(database: TestDatabase) -> None:
    before = EnergyTotals(day=date(2026, 1, 1), charge_today=5.0, load_today=7.0)
    after = EnergyTotals(
        day=date(2026, 1, 2), charge_today=0.5, load_today=0.25, before=DayEnergy(date(2026, 1, 1), 5.5, 7.25)
    )
    async with running(output_of(database)) as output:
        await deliver(output, [event(START, values(1), energy=before), event(START + 60, values(1), energy=after)])
        assert await output.days("roof-1", date(2026, 1, 1), date(2026, 1, 2)) == [
            DayEnergy(date(2026, 1, 1), 5.5, 7.25),
            DayEnergy(date(2026, 1, 2), 0.5, 0.25),
        ]


async def test_a_series_is_right_whether_rolled_up_or_not(database: TestDatabase) -> None:
    """Part is rolled up, part is not, and part is within five minutes that were rolled up before they were complete."""
    clock = Clock()
    rng = random.Random(1)
    early = [one for one in events(1500) if rng.random() < 0.9]
    late = [one for one in events(2200) if one.reading.time not in {other.reading.time for other in early}]
    within = [one for one in [*early, *late] if one.reading.time < START + 2 * HOUR]
    async with running(output_of(database, clock)) as output:
        await deliver(output, early)
        await maintain(output, clock)
        assert database.count("tracer_pending") == 0
        await deliver(output, late)
        assert database.count("tracer_pending") > 0
        for _ in range(2):
            for step in (5.0, 7.5, 60.0, 300.0, 900.0, 3600.0, 7200.0, 86_400.0):
                series = await output.series("roof-1", START, START + 2 * HOUR, step)
                assert series.step == step
                assert_points(series.points, expected(within, step))
            await maintain(output, clock)


async def test_rolled_up_rows_are_the_minimum_mean_and_maximum_of_five_minutes(database: TestDatabase) -> None:
    clock = Clock()
    batch = [*events(1000), *events(1000, interval=7.0, controller=SHED)]
    async with running(output_of(database, clock)) as output:
        await deliver(output, batch)
        await maintain(output, clock)
    names = ("battery_voltage", "pv_voltage", "charge_power", "load_power", "battery_temperature")
    columns = ", ".join(
        f"{name}_min / {scale}, {name}_sum / {scale} / count, {name}_max / {scale}"
        for name, scale in zip(names, ("100.0", "100.0", "10000.0", "10000.0", "1.0"), strict=True)
    )
    for controller, of in (("roof-1", batch[:1000]), ("shed-1", batch[1000:])):
        rows = database.query(
            f"SELECT time, {columns} FROM tracer_five_minutes WHERE controller = "
            f"(SELECT key FROM tracer_controllers WHERE id = '{controller}') ORDER BY time"
        )
        wanted = expected(of, 300.0)
        assert [row[0] for row in rows] == [point.time * 1000 for point in wanted]
        for row, point in zip(rows, wanted, strict=True):
            assert row[1:] == pytest.approx([value for three in point[1:] for value in three])
    assert database.query("SELECT sum(count) FROM tracer_hours") == [(2000,)]


async def test_an_answer_has_at_most_1500_points(database: TestDatabase) -> None:
    batch = [one for hour in range(48) for one in events(20, START + hour * HOUR + 0.5, 0.25)]
    spans = (100.0, HOUR, DAY, 31 * DAY, 365 * DAY, 20_000 * DAY)
    async with running(output_of(database)) as output:
        await deliver(output, batch)
        for span, step in itertools.product(spans, (None, 0.2, 1.0, 100.0)):
            end = START + span + 17.0
            series = await output.series("roof-1", START, end, step)
            assert 0 < len(series.points) <= MAX_POINTS
            assert (step or 0) <= series.step <= 4 * max(span / MAX_POINTS, step or 0, 0.2) + 300
            whole = expected([one for one in batch if one.reading.time < end], series.step)
            assert_points(series.points, whole)


async def test_old_readings_are_deleted_and_their_five_minutes_stay(database: TestDatabase) -> None:
    clock = Clock(START + 2 * HOUR)
    old, new = events(1440), events(60, START + 20 * DAY)
    async with running(output_of(database, clock)) as output:
        await deliver(output, old)
        for _ in range(20 * 24):
            clock.advance(HOUR)
            output._clock.observe()
        await deliver(output, new)
        await maintain(output, clock)
        assert database.count() == 60
        series = await output.series("roof-1", START, START + 2 * HOUR, 5.0)
        assert series.step == 300.0
        assert_points(series.points, expected(old, 300.0))
        newest = await output.series("roof-1", START + 20 * DAY, START + 21 * DAY, 60.0)
        assert newest.step == 60.0
        assert_points(newest.points, expected(new, 60.0))
        clock.advance(800 * DAY)
        output._clock.observe()
        await maintain(output, clock)
        assert (database.count(), database.count("tracer_five_minutes"), database.count("tracer_hours")) == (0, 0, 0)


@pytest.mark.parametrize("jump", [-400 * DAY, 400 * DAY, 30.0])
async def test_nothing_is_deleted_within_an_hour_after_the_clock_stepped(database: TestDatabase, jump: float) -> None:
    clock = Clock(START + 30 * DAY)
    async with running(output_of(database, clock)) as output:
        await deliver(output, events(100))
        for step in (jump, -jump):
            clock.advance(10)
            clock.wall_time += step
            await deliver(output, [event(START)])
            await maintain(output, clock, HOUR - 5)
            assert database.count() == 100
        await maintain(output, clock)
        assert database.count() == 0


async def test_readings_with_times_before_the_deleted_ones_do_not_replace_their_five_minutes(
    database: TestDatabase,
) -> None:
    """The clock was set back into a time that was rolled up and deleted."""
    clock = Clock(START + 30 * DAY)
    batch = events(120)
    async with running(output_of(database, clock)) as output:
        await deliver(output, batch)
        await maintain(output, clock)
        await maintain(output, clock)
        assert database.count() == 0
        await deliver(output, [event(START + 1.5, values(7))])
        await maintain(output, clock)
        series = await output.series("roof-1", START, START + 600, 300.0)
        assert_points(series.points, expected(batch, 300.0))


async def test_many_old_rows_are_deleted_in_several_transactions_with_batches_between(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer_async.gateway.history.rollup._DELETED", 100)
    clock = Clock(START + 30 * DAY)
    output = output_of(database, clock, buffer=2000)
    seen: list[int] = []

    async def watched(connection: AsyncConnection, *arguments: object) -> AsyncIterator[None]:
        async for _ in delete_old(connection, *arguments):  # type: ignore[arg-type]
            seen.append(database.count())
            clock.advance(1.0)
            output.publish(event(START + 30 * DAY + len(seen), values(1)))
            yield

    monkeypatch.setattr("tracer_async.gateway.history.store.delete_old", watched)
    async with running(output):
        await deliver(output, events(1000))
        await maintain(output, clock)
        await until(lambda: output._maintain_at > clock.monotonic())
    assert len(seen) > 10
    assert all(before - after <= 100 for before, after in itertools.pairwise(seen))
    assert database.count() == len(seen)


async def test_steps_of_a_day_begin_at_local_midnight(database: TestDatabase) -> None:
    zone = ZoneInfo("Asia/Kolkata")
    batch = events(300, START, 600.0)
    output = HistoryOutput(database.config(), directory=database.directory, zone=zone)
    async with running(output):
        await deliver(output, batch)
        series = await output.series("roof-1", START, START + 3 * DAY, DAY)
    assert_points(series.points, expected(batch, DAY, offset=5.5 * HOUR))
    assert all(datetime.fromtimestamp(point.time, zone).hour == 0 for point in series.points)


async def test_a_full_buffer_drops_the_oldest_and_counts_them(database: TestDatabase) -> None:
    output = output_of(database, buffer=100)
    for one in events(250):
        output.publish(one)
    async with running(output):
        await until(lambda: output.state.delivered == 100)
    assert output.state.dropped == 150
    assert database.query("SELECT min(time) FROM tracer_readings") == [(round((START + 150 * 5) * 1000),)]


async def test_a_half_full_buffer_is_written_before_its_time(database: TestDatabase) -> None:
    output = output_of(database, buffer=100, flush_seconds=3600.0)
    async with running(output):
        await until(lambda: output.state.connected)
        await deliver(output, events(60))


async def test_what_waits_at_the_end_is_written(database: TestDatabase) -> None:
    output = output_of(database, flush_seconds=3600.0)
    async with running(output):
        await until(lambda: output.state.connected)
        for one in events(1200):
            output.publish(one)
    assert database.count() == 1200


async def test_a_batch_that_is_cancelled_at_any_moment_is_written_at_the_end(database: TestDatabase) -> None:
    rng = random.Random(3)
    written = 0
    for _ in range(8):
        output = output_of(database)
        task = asyncio.create_task(output.run())
        await until(lambda output=output: output.state.connected)  # type: ignore[misc]
        for one in events(1200, START + written * 5):
            output.publish(one)
        written += 1200
        for _ in range(rng.randrange(150)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await output.drain()
        assert database.count() == written


async def test_reading_and_writing_at_the_same_time(database: TestDatabase) -> None:
    batch = events(1000, interval=1.0)
    wanted = expected(batch, 2.0)
    async with running(output_of(database)) as output:
        await until(lambda: output.state.connected)

        async def read() -> int:
            seen = 0
            while seen < len(wanted):
                points = (await output.series("roof-1", START, START + 1000, 2.0)).points
                assert len(points) >= seen
                assert_points(points, wanted[: len(points)])
                seen = len(points)
            return seen

        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(read())
            for start in range(0, len(batch), 50):
                await deliver(output, batch[start : start + 50])


async def test_a_newer_schema_is_refused_and_not_changed(
    database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(output_of(database)) as output:
        await deliver(output, events(10))
    database.query("UPDATE tracer_schema SET version = 99")
    database.query("ALTER TABLE tracer_days ADD COLUMN novelty INTEGER")
    output = output_of(database)
    async with running(output):
        for one in events(20):
            output.publish(one)
        await until(lambda: output.state.error is not None)
        error = output.state.error or ""
        assert f"schema version 99, and this version of tracer-async knows {VERSION}: update tracer-async" in error
        with pytest.raises(OSError, match="schema version 99"):
            await output.series("roof-1", START, START + 60)
        with pytest.raises(OSError, match="schema version 99"):
            [row async for row in export(database.config(), database.directory, "roof-1", kind=Kind.DAYS, **ALL)]
        assert database.count() == 10
        # Its owner repairs it, or updates the program: nothing has to be restarted.
        database.query(f"UPDATE tracer_schema SET version = {VERSION}")
        await until(lambda: output.state.connected)
    assert database.count() == 20
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


async def test_a_database_without_tables_is_reported_to_readers(database: TestDatabase) -> None:
    output = output_of(database)
    with pytest.raises(OSError, match="the history is not available: "):
        await output.series("roof-1", START, START + 60)
    with pytest.raises(OSError, match="the history is not available: ") as caught:
        await output.days("roof-1", date(2026, 1, 1), date(2026, 1, 2))
    assert PASSWORD not in str(caught.value)
    await output.drain()


@pytest.mark.parametrize("step", [0.0, -1.0, float("nan")])
async def test_a_step_that_is_not_positive_is_an_error(database: TestDatabase, step: float) -> None:
    with pytest.raises(ValueError, match="step must be positive"):
        await output_of(database).series("roof-1", START, START + 60, step)


async def test_an_empty_span_has_no_points(database: TestDatabase) -> None:
    output = output_of(database)
    assert (await output.series("roof-1", START, START)).points == []
    assert (await output.series("roof-1", START, START - 60, 5.0)).points == []


async def test_exported_five_minutes_and_days(database: TestDatabase) -> None:
    clock = Clock()
    today = EnergyTotals(day=date(2026, 1, 1), charge_today=1.5, load_today=2.5)
    batch = events(1000)
    async with running(output_of(database, clock)) as output:
        await deliver(output, [*batch, event(START, energy=today)])
        await maintain(output, clock)
    start = datetime.fromtimestamp(START, UTC)
    rows = [
        row
        async for chunk in export(
            database.config(),
            database.directory,
            "roof-1",
            kind=Kind.FIVE_MINUTES,
            start=start + timedelta(seconds=300),
            end=start + timedelta(seconds=900),
        )
        for row in chunk
    ]
    wanted = expected(batch, 300.0)[1:3]
    assert [row["time"].timestamp() for row in rows] == [point.time for point in wanted]
    assert [row["count"] for row in rows] == [60, 60]
    for row, point in zip(rows, wanted, strict=True):
        assert list(row.values())[2:] == pytest.approx([value for three in point[1:] for value in three], abs=0.00006)
        assert list(row.values())[2:] == [round(value, 4) for value in list(row.values())[2:]]
    days = [
        row
        async for chunk in export(database.config(), database.directory, "roof-1", kind=Kind.DAYS, **ALL)
        for row in chunk
    ]
    assert days == [{"day": date(2026, 1, 1), "charge_energy": 1.5, "load_energy": 2.5}]
    with pytest.raises(OSError, match="no readings of a controller with the id attic"):
        [row async for row in export(database.config(), database.directory, "attic", kind=Kind.DAYS, **ALL)]


async def test_an_export_is_read_in_chunks_without_a_gap(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer_async.gateway.history.export._CHUNK", 100)
    async with running(output_of(database)) as output:
        await deliver(output, events(1000))
    chunks = [
        [row["time"].timestamp() for row in chunk]
        async for chunk in export(database.config(), database.directory, "roof-1", kind=Kind.READINGS, **ALL)
    ]
    assert [time for chunk in chunks for time in chunk] == [START + 5 * number for number in range(1000)]
    assert max(map(len, chunks)) <= 100
