"""The version of the schema, and migrations, with real data on both databases."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, text

from tests.gateway.history import old_schemas
from tests.gateway.history.databases import Sqlite, TestDatabase
from tests.gateway.history.events import START, Clock, deliver, events, expected, running, shown_age
from tracer_async.gateway.history.database import Database
from tracer_async.gateway.history.export import Kind, Row, export
from tracer_async.gateway.history.reader import DatabaseReader
from tracer_async.gateway.history.schema import MIGRATIONS, VERSION, SchemaError, prepare
from tracer_async.gateway.history.store import HistoryOutput


def output_of(database: TestDatabase) -> HistoryOutput:
    clock = Clock()
    return HistoryOutput(
        database.config(), directory=database.directory, zone=None, wall=clock.wall, monotonic=clock.monotonic
    )


def add_a_column(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE tracer_days ADD COLUMN unknown_seconds INTEGER NOT NULL DEFAULT 7"))


def change_the_unit(connection: Connection) -> None:
    connection.execute(text("UPDATE tracer_readings SET pv_voltage = pv_voltage * 10"))


def fail(connection: Connection) -> None:
    add_a_column(connection)
    connection.execute(text("SELECT no_such_column FROM tracer_days"))


async def migrate(database: TestDatabase, *migrations: Callable[[Connection], None]) -> None:
    """Run migrations beyond those of this version."""
    opened = Database(database.config(), database.directory)
    try:
        connection = await opened.writer()
        async with connection.begin():
            await connection.run_sync(prepare, (*MIGRATIONS, *migrations))
    finally:
        await opened.close()


async def test_the_version_is_stored(database: TestDatabase) -> None:
    async with running(output_of(database)) as output:
        await deliver(output, events(1))
    assert 1 + len(MIGRATIONS) == VERSION
    assert database.query("SELECT version FROM tracer_schema") == [(VERSION,)]


def test_there_is_a_database_of_each_older_version() -> None:
    assert set(old_schemas.VERSIONS) == set(range(1, VERSION))


async def exported(database: TestDatabase) -> list[Row]:
    chunks = export(
        database.config(),
        database.directory,
        "roof-1",
        kind=Kind.READINGS,
        start=datetime(1970, 1, 1, tzinfo=UTC),
        end=datetime(9999, 1, 1, tzinfo=UTC),
    )
    return [row async for chunk in chunks for row in chunk]


@pytest.mark.parametrize("version", old_schemas.VERSIONS)
async def test_a_database_of_an_older_version_keeps_its_readings_whose_age_is_unknown(
    database: TestDatabase, version: int
) -> None:
    old_schemas.create(database, version)
    before = database.query(old_schemas.READINGS)
    batch = events(100)
    with pytest.raises(OSError, match=f"has schema version {version}; start the gateway once to bring it to {VERSION}"):
        await exported(database)
    async with running(output_of(database)) as output:
        await deliver(output, batch)
        series = await output.series("roof-1", START - 60, START, 1.0)
        assert [point.battery_voltage[1] for point in series.points] == old_schemas.BATTERY_VOLTAGES
    assert database.query("SELECT version FROM tracer_schema") == [(VERSION,)]
    assert database.query(f"{old_schemas.READINGS} LIMIT {len(before)}") == before
    rows = await exported(database)
    assert [row["battery_voltage"] for row in rows[: len(before)]] == old_schemas.BATTERY_VOLTAGES
    assert [row["age"] for row in rows] == [*(None for _ in before), *map(shown_age, batch)]


@pytest.mark.parametrize("version", old_schemas.VERSIONS)
async def test_a_migrated_database_has_the_tables_of_a_new_one(database: TestDatabase, version: int) -> None:
    old_schemas.create(database, version)
    async with running(output_of(database)) as output:
        await deliver(output, events(1))
    migrated = old_schemas.columns(database)
    # The controllers are the last: the others refer to them.
    for name in sorted({table for table, *_ in migrated}, key=lambda name: name == "tracer_controllers"):
        database.query(f"DROP TABLE {name}")
    async with running(output_of(database)) as output:
        await deliver(output, events(1))
    assert old_schemas.columns(database) == migrated


async def test_migrations_run_once_and_in_order_and_keep_the_data(database: TestDatabase) -> None:
    batch = events(500)
    async with running(output_of(database)) as output:
        await deliver(output, batch)
    before = database.query("SELECT time, battery_voltage, pv_voltage * 10 FROM tracer_readings ORDER BY time")
    await migrate(database, add_a_column)
    assert database.query("SELECT version FROM tracer_schema") == [(VERSION + 1,)]
    assert database.query("SELECT count(unknown_seconds) FROM tracer_days") == [(0,)]
    # Back to the version that this program knows.
    database.query(f"UPDATE tracer_schema SET version = {VERSION}")
    database.query("ALTER TABLE tracer_days DROP COLUMN unknown_seconds")
    await migrate(database, change_the_unit, add_a_column)
    assert database.query("SELECT version FROM tracer_schema") == [(VERSION + 2,)]
    after = database.query("SELECT time, battery_voltage, pv_voltage FROM tracer_readings ORDER BY time")
    assert after == before
    assert len(after) == len(expected(batch, 5.0))


async def test_a_migration_that_fails_changes_nothing(database: TestDatabase) -> None:
    async with running(output_of(database)) as output:
        await deliver(output, events(100))
    before = [database.query(f"SELECT * FROM {table}") for table in ("tracer_readings", "tracer_days")]
    with pytest.raises(Exception, match="no_such_column"):
        await migrate(database, change_the_unit, fail)
    assert [database.query(f"SELECT * FROM {table}") for table in ("tracer_readings", "tracer_days")] == before
    assert database.query("SELECT version FROM tracer_schema") == [(VERSION,)]
    with pytest.raises(Exception, match="unknown_seconds"):
        database.query("SELECT unknown_seconds FROM tracer_days") or pytest.fail("unknown_seconds is there")


@pytest.mark.parametrize("version", [VERSION + 1, 0])
async def test_an_unknown_version_is_an_error_before_anything_is_changed(sqlite: Sqlite, version: int) -> None:
    async with running(output_of(sqlite)) as output:
        await deliver(output, events(100))
    sqlite.query(f"UPDATE tracer_schema SET version = {version}")
    content = sqlite.file.read_bytes()
    with pytest.raises(SchemaError, match="configure another database"):
        await migrate(sqlite)
    assert sqlite.file.read_bytes() == content


async def test_series_read_ranges_of_the_primary_keys_only(sqlite: Sqlite) -> None:
    """A year is answered fast for this reason. Times are not asserted here."""
    async with running(output_of(sqlite)) as output:
        await deliver(output, events(10))
    database = Database(sqlite.config(), sqlite.directory)
    statements: list[str] = []
    reader = DatabaseReader(database, None, lambda: None)
    async with database.reader() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert driver is not None
        await driver.set_trace_callback(statements.append)
    for step in (5.0, 300.0, 3600.0):
        await reader.series("roof-1", START, START + 3600, step)
    await database.close()
    plans = [
        row[3]
        for statement in statements
        if re.match(r"SELECT anon", statement)
        for row in sqlite.query(f"EXPLAIN QUERY PLAN {statement}")
    ]
    assert len(plans) > 10
    searches = [plan for plan in plans if "SEARCH tracer_" in plan]
    assert len(searches) > 5
    assert all("USING PRIMARY KEY (controller=?" in plan for plan in searches)
    assert not [plan for plan in plans if "SCAN tracer_" in plan]
