"""Rows of the history for files: readings as they came, five-minute values, energy of days."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Table, select

from tracer_async import RealtimeData
from tracer_async.gateway.config import HistoryConfig
from tracer_async.gateway.history.database import Database, reason
from tracer_async.gateway.history.schema import (
    FLAGS,
    QUANTITIES,
    check_version,
    controllers,
    days,
    extremes,
    five_minutes,
    readings,
)

__all__ = ["FIELDS", "Kind", "Row", "export"]

Row = dict[str, Any]


class Kind(StrEnum):
    """What a row is."""

    READINGS = "readings"
    FIVE_MINUTES = "five-minutes"
    DAYS = "days"


FIELDS: dict[Kind, dict[str, type]] = {
    Kind.READINGS: {
        "time": datetime,
        "age": float,
        **{name: type(value) for name, value in RealtimeData.from_bytes(bytes(24)).to_dict().items()},
    },
    Kind.FIVE_MINUTES: {
        "time": datetime,
        "count": int,
        **{f"{quantity.name}_{kind}": float for quantity in QUANTITIES for kind in ("min", "mean", "max")},
    },
    Kind.DAYS: {"day": date, "charge_energy": float, "load_energy": float},
}
"""The fields of each kind of rows, and their types. V, A, W, degrees Celsius, Wh and s. An unknown age is None."""

# So many rows are read at once. Each chunk has a transaction of its own: a long one would let SQLite's WAL grow.
_CHUNK = 5_000

# Decimals of the energy of days, in Wh.
_ENERGY_DIGITS = 3

# Decimals of five-minute values. Power, the finest quantity, is a product of two values with two decimals each.
_DIGITS = 4


async def export(
    config: HistoryConfig, directory: Path, controller_id: str, *, kind: Kind, start: datetime, end: datetime
) -> AsyncIterator[list[Row]]:
    """Yield the rows of a controller from *start* to before *end* in chunks, in the order of their times.

    Days are those from the date of *start* to before *end*. Raises OSError if the database does not
    answer, or has no such controller.
    """
    database = Database(config, directory)
    table, make = _TABLES[kind]
    order: Column[Any] = table.c.day if kind is Kind.DAYS else table.c.time
    low, high = _limits(kind, start, end)
    try:
        while True:
            rows = await _chunk(database, controller_id, table, order, low=low, high=high)
            if rows:
                yield [make(row) for row in rows]
            if len(rows) < _CHUNK:
                return
            low = rows[-1][1]
    finally:
        await database.close()


def _limits(kind: Kind, start: datetime, end: datetime) -> tuple[Any, Any]:
    """Return the value before the first one, and the last one."""
    if kind is Kind.DAYS:
        first = start.date().toordinal()
        return date.fromordinal(max(first - 1, 1)), (end - timedelta(microseconds=1)).date()
    return _milliseconds(start) - 1, _milliseconds(end) - 1


async def _chunk(
    database: Database, controller_id: str, table: Table, order: Column[Any], *, low: Any, high: Any
) -> Sequence[Any]:
    """Return the next rows after *low*, up to *high*. Raises OSError."""
    try:
        async with database.reader() as connection:
            await connection.run_sync(check_version)
            known = select(controllers.c.key).where(controllers.c.id == controller_id)
            key = (await connection.execute(known)).scalar()
            query = select(table).where(table.c.controller == key, order > low, order <= high)
            rows = (await connection.execute(query.order_by(order).limit(_CHUNK))).all()
    except Exception as error:
        raise OSError(f"the history is not available: {reason(error)}") from error
    if key is None:
        raise OSError(f"the history has no readings of a controller with the id {controller_id}")
    return rows


def _milliseconds(time: datetime) -> int:
    # Not by `timestamp`, whose float is not exact.
    since_1970 = time - datetime(1970, 1, 1, tzinfo=UTC)
    return -(-((since_1970.days * 86_400 + since_1970.seconds) * 1_000_000 + since_1970.microseconds) // 1000)


def _time(milliseconds: int) -> datetime:
    seconds, rest = divmod(milliseconds, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000)


def _reading(row: Any) -> Row:
    flags = {name: bool(row.flags >> bit & 1) for bit, name in enumerate(FLAGS)}
    data = RealtimeData(
        battery_voltage=row.battery_voltage / 100,
        pv_voltage=row.pv_voltage / 100,
        load_current=row.load_current / 100,
        charge_current=row.charge_current / 100,
        over_discharge_voltage=row.over_discharge_voltage / 100,
        battery_full_voltage=row.battery_full_voltage / 100,
        battery_temperature=row.battery_temperature,
        reserved=row.reserved,
        **flags,
    )
    age = None if row.age is None else row.age / 1000
    return {"time": _time(row.time), "age": age, **data.to_dict()}


def _five_minutes(row: Any) -> Row:
    _, time, count, *aggregates = row
    values = [round(value, _DIGITS) for three in extremes(count, aggregates) for value in three]
    names = [name for name in FIELDS[Kind.FIVE_MINUTES] if name not in ("time", "count")]
    return {"time": _time(time), "count": count, **dict(zip(names, values, strict=True))}


def _day(row: Any) -> Row:
    return {
        "day": row.day,
        "charge_energy": round(row.charge, _ENERGY_DIGITS),
        "load_energy": round(row.load, _ENERGY_DIGITS),
    }


_TABLES: dict[Kind, tuple[Table, Callable[[Any], Row]]] = {
    Kind.READINGS: (readings, _reading),
    Kind.FIVE_MINUTES: (five_minutes, _five_minutes),
    Kind.DAYS: (days, _day),
}
