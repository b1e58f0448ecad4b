"""A year of history in a SQLite file, for `benchmarks.gateway`."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from sqlalchemy import Table, create_engine, insert
from sqlalchemy.dialects import sqlite

from tracer_async.gateway.history.schema import (
    AGGREGATES,
    FLAGS,
    HOUR,
    SLOT,
    controllers,
    days,
    five_minutes,
    hours,
    prepare,
    readings,
)

_DAY = 86_400_000
# The defaults of the configuration: all readings of 14 days, one in 5 s.
_RAW_DAYS = 14
_INTERVAL = 5000


def write_history(file: Path, length: int) -> int:
    """Write *length* days of one controller that end now. Return the number of rows."""
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        prepare(connection)
        connection.execute(insert(controllers), [{"key": 1, "id": "c0"}])
    engine.dispose()
    now = int(time.time() * 1000) // HOUR * HOUR
    start = now - length * _DAY
    raw = now - min(_RAW_DAYS, length) * _DAY
    today = date.today()  # noqa: DTZ011  # any zone will do
    with sqlite3.connect(file) as database:
        counts = [
            _fill(database, readings, (_reading(at) for at in range(raw, now, _INTERVAL))),
            _fill(database, five_minutes, (_aggregate(at, SLOT // _INTERVAL) for at in range(start, now, SLOT))),
            _fill(database, hours, (_aggregate(at, HOUR // _INTERVAL) for at in range(start, now, HOUR))),
            _fill(database, days, ((1, str(today - timedelta(days=back)), 900.0, 400.0) for back in range(length))),
        ]
    database.close()
    return sum(counts)


def _fill(database: sqlite3.Connection, table: Table, rows: Iterator[tuple[object, ...]]) -> int:
    statement = str(insert(table).compile(dialect=sqlite.dialect(paramstyle="qmark")))
    return database.executemany(statement, rows).rowcount


def _reading(at: int) -> tuple[object, ...]:
    """Return a row of `readings`, in the order of its columns."""
    volts, sun = _volts(at), _sun(at)
    row = {
        "controller": 1,
        "time": at,
        "battery_voltage": volts,
        "pv_voltage": 1800 * sun // 100,
        "load_current": 120,
        "charge_current": 9 * sun,
        "over_discharge_voltage": 1110,
        "battery_full_voltage": 1440,
        "battery_temperature": 25,
        "flags": 1 | (sun > 0) << (len(FLAGS) - 1),
        "reserved": b"\0\0\0\0",
        "age": 20,
    }
    return tuple(row[column.name] for column in readings.columns)


def _aggregate(at: int, count: int) -> tuple[object, ...]:
    value = _volts(at)
    scale = {"min": 1, "sum": count, "max": 1}
    return (1, at, count, *(value * scale[name.rpartition("_")[2]] for name in AGGREGATES))


def _sun(at: int) -> int:
    return max(0, round(100 * math.sin((at % _DAY / _DAY - 0.25) * 2 * math.pi)))


def _volts(at: int) -> int:
    return 1240 + _sun(at) + at // 1000 % 7
