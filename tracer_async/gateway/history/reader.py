"""Answers to questions about the past: series in steps, and the energy of days.

The database aggregates; only the points of an answer reach Python, so that the event loop is not stopped.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, tzinfo
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Table,
    and_,
    bindparam,
    cast,
    exists,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from tracer_async.gateway.history.database import Database, is_damage, reason
from tracer_async.gateway.history.query import MAX_POINTS, DayEnergy, Point, Series
from tracer_async.gateway.history.schema import (
    AGGREGATES,
    HOUR,
    SLOT,
    aggregated,
    check_version,
    controllers,
    days,
    extremes,
    five_minutes,
    hours,
    pending,
    readings,
    total,
)

__all__ = ["DatabaseReader"]

_TIMEOUT = 5.0

# The steps to choose from, in milliseconds, up to a day. Longer ones are whole days.
_STEPS = (
    *(200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000),
    *(SLOT, 600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000, 86_400_000),
)
_DAY = _STEPS[-1]

# 1970 to 3000: every time zone has an offset for it.
_LAST = 32_503_680_000.0

_controller = bindparam("controller", type_=BigInteger)
_start = bindparam("start", type_=BigInteger)
_split = bindparam("split", type_=BigInteger)
_end = bindparam("end", type_=BigInteger)


class DatabaseReader:
    """Implements `HistoryReader`. *on_damage* is called when the SQLite file turns out to be damaged."""

    def __init__(self, database: Database, zone: tzinfo | None, on_damage: Callable[[], None]) -> None:
        self._database = database
        self._zone = zone
        self._on_damage = on_damage

    async def series(self, controller_id: str, start: float, end: float, step: float | None = None) -> Series:
        """Return what was measured from *start* to before *end*, seconds since 1970, in steps of *step* seconds.

        Steps begin at multiples of *step* in local time. For steps from 300 s on, start and end are extended to whole
        five minutes, from 1 h on to whole hours. Where only five-minute values are left, the step is at least 300 s.
        Raises OSError if the database does not answer, and ValueError for a step that is not positive.
        """
        if step is not None and not step > 0:
            raise ValueError("step must be positive")
        first, last = (round(min(max(time, 0.0), _LAST) * 1000) for time in (start, end))
        phase = self._phase(first / 1000)
        width = _step(first, last, phase, 1 if step is None else max(1, round(min(step, _LAST) * 1000)))
        if last <= first:
            return Series(width / 1000, [])
        async with self._connection() as connection:
            key = await _key(connection, controller_id)
            if width < SLOT and await _is_rolled_up_only(connection, key, first, last):
                width = SLOT
            statement = _from_readings
            if width >= SLOT:
                # An hour of local time is not an hour of the table where the offset has minutes.
                unit = HOUR if width >= HOUR and phase % HOUR == 0 else SLOT
                first, last = first // unit * unit, -(-last // unit) * unit
                width = _step(first, last, phase, -(-width // unit) * unit)
                statement = _from_hours if unit == HOUR else _from_five_minutes
            split = await _first_pending(connection, key, first, last)
            values = {"controller": key, "start": first, "split": split, "end": last, "width": width, "phase": phase}
            rows = (await connection.execute(statement, values)).all()
        points = [Point(bucket / 1000, *extremes(count, aggregates)) for bucket, count, *aggregates in rows]
        return Series(width / 1000, points)

    async def days(self, controller_id: str, first: date, last: date) -> list[DayEnergy]:
        """Return the energy of each day from *first* to *last* for which there is a record.

        Raises OSError if the database does not answer.
        """
        statement = (
            select(days.c.day, days.c.charge, days.c.load)
            .join(controllers, controllers.c.key == days.c.controller)
            .where(controllers.c.id == controller_id, days.c.day.between(first, last))
            .order_by(days.c.day)
        )
        async with self._connection() as connection:
            return [DayEnergy(*row) for row in await connection.execute(statement)]

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection. Whatever the database raises becomes an OSError."""
        try:
            async with asyncio.timeout(_TIMEOUT), self._database.reader() as connection:
                await connection.run_sync(check_version)
                yield connection
        except Exception as error:
            if is_damage(error):
                self._on_damage()
            raise OSError(f"the history is not available: {reason(error)}") from error

    def _phase(self, time: float) -> int:
        """Return the offset of local time in milliseconds."""
        offset = datetime.fromtimestamp(time, UTC).astimezone(self._zone).utcoffset()
        return 0 if offset is None else round(offset.total_seconds() * 1000)


async def _key(connection: AsyncConnection, controller_id: str) -> int:
    """Return the number of a controller, or 0, which no controller has."""
    return (await connection.execute(select(controllers.c.key).where(controllers.c.id == controller_id))).scalar() or 0


async def _is_rolled_up_only(connection: AsyncConnection, key: int, first: int, last: int) -> bool:
    """Return whether there are five-minute values from before the first reading that is left."""
    oldest = (await connection.execute(select(func.min(readings.c.time)).where(readings.c.controller == key))).scalar()
    before = last if oldest is None else min(last, oldest // SLOT * SLOT)
    older = and_(five_minutes.c.controller == key, five_minutes.c.time >= first, five_minutes.c.time < before)
    return bool((await connection.execute(select(exists().where(older)))).scalar())


async def _first_pending(connection: AsyncConnection, key: int, first: int, last: int) -> int:
    """Return the beginning of the first hour from *first* to *last* that is not rolled up, or *last*."""
    of_range = and_(pending.c.controller == key, pending.c.time >= first, pending.c.time < last)
    time = (await connection.execute(select(func.min(pending.c.time)).where(of_range))).scalar()
    return last if time is None else max(first, time // HOUR * HOUR)


def _step(first: int, last: int, phase: int, wanted: int) -> int:
    """Return *wanted*, or the least longer step with at most `MAX_POINTS`. All in milliseconds."""

    def points(step: int) -> int:
        return (last - 1 + phase) // step - (first + phase) // step + 1

    def longer() -> Iterator[int]:
        yield wanted
        yield from (step for step in _STEPS if step > wanted)
        yield from (step for step in itertools.count(2 * _DAY, _DAY) if step > wanted)

    return next(step for step in longer() if points(step) <= MAX_POINTS)


def _bucket(time: ColumnElement[int]) -> ColumnElement[int]:
    """Return the beginning of the step that *time* is in."""
    width, phase = bindparam("width", type_=BigInteger), bindparam("phase", type_=BigInteger)
    return (time - (time + phase) % width).label("bucket")


def _readings(condition: ColumnElement[bool]) -> Any:
    """Return a query of readings with the columns of `five_minutes`: each one is a minimum, sum and maximum."""
    return select(
        _bucket(readings.c.time),
        cast(literal(1), BigInteger).label("count"),
        *(value.label(name) for name, value in AGGREGATES.items()),
    ).where(condition)


def _rows(table: Table, start: ColumnElement[int], end: ColumnElement[int]) -> Select[Any]:
    """Return a query of aggregated rows from *start* to *end*."""
    return select(_bucket(table.c.time), table.c["count"], *(table.c[name] for name in AGGREGATES)).where(
        table.c.controller == _controller, table.c.time >= start, table.c.time < end
    )


def _points(query: Any) -> Any:
    """Return a query of the points of all rows of *query*."""
    rows = query.subquery()
    columns = [aggregated(name, rows.c[name]).label(name) for name in AGGREGATES]
    return (
        select(rows.c.bucket, total(rows.c["count"]).label("count"), *columns)
        .group_by(rows.c.bucket)
        .order_by(rows.c.bucket)
    )


_from_readings = _points(
    _readings(and_(readings.c.controller == _controller, readings.c.time >= _start, readings.c.time < _end))
)

# Nothing before `split` is pending. From there on, readings are used for each pending five minutes.
_slot = readings.c.time - readings.c.time % SLOT
_after_split = (
    _rows(five_minutes, _split, _end).where(
        ~exists().where(pending.c.controller == _controller, pending.c.time == five_minutes.c.time)
    ),
    _readings(
        and_(
            readings.c.controller == _controller,
            readings.c.time >= _split,
            readings.c.time < _end,
            exists().where(pending.c.controller == _controller, pending.c.time == _slot),
        )
    ),
)
_from_five_minutes = _points(union_all(_rows(five_minutes, _start, _split), *_after_split))
_from_hours = _points(union_all(_rows(hours, _start, _split), *_after_split))
