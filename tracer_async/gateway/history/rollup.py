"""Roll-ups, and the deletion of old rows.

`pending` lists the five minutes that readings were written for. A roll-up computes their rows from all of their
readings, and no clock is involved: late readings, a clock that was set back and a crash between two roll-ups all lead
to the same rows. Deletion by age is the part that needs the right time: see `ClockWatch`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator

from sqlalchemy import Table, delete, func, literal_column, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from tracer_async.gateway.history.batch import insert_for
from tracer_async.gateway.history.schema import (
    AGGREGATES,
    HOUR,
    SLOT,
    aggregated,
    controllers,
    five_minutes,
    hours,
    pending,
    readings,
    total,
)

__all__ = ["ClockWatch", "delete_old", "reclaim", "roll_up"]

# Rows of `pending` in one transaction, rows deleted in one, and pages given back to the file system in one.
_SLOTS = 100
_DELETED = 5_000
_PAGES = 1_000

# A file is made shorter when more than this part of it is unused. Less is soon used again, without growing the file.
_UNUSED = 0.25

# The wall clock may run this much differently without a step: seconds, and seconds per second (NTP corrects 0.0005).
_TOLERANCE = 2.0
_DRIFT = 0.001


class ClockWatch:
    """Tells for how long the wall clock has not stepped.

    A machine without a battery-backed clock may start with a wrong time, even one in the future. Rows must not be
    deleted by it.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._seen = wall(), monotonic()
        self._stepped = self._seen[1]

    def observe(self) -> None:
        """Compare the clocks. Call this at least every hour."""
        wall, monotonic = self._wall(), self._monotonic()
        elapsed = monotonic - self._seen[1]
        if abs(wall - self._seen[0] - elapsed) > _TOLERANCE + _DRIFT * elapsed:
            self._stepped = monotonic
        self._seen = wall, monotonic

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return self._wall()

    def steady_seconds(self) -> float:
        """Return the seconds since the clock has stepped, or since the start."""
        self.observe()
        return self._monotonic() - self._stepped


async def roll_up(connection: AsyncConnection) -> AsyncIterator[None]:
    """Compute the rows of all pending five minutes, and of their hours. Yields after each transaction."""
    while True:
        async with connection.begin():
            chunk = select(pending).order_by(pending.c.controller, pending.c.time).limit(_SLOTS)
            slots = (await connection.execute(chunk)).all()
            if not slots:
                return
            for key, first, last in _spans([(slot.controller, slot.time) for slot in slots]):
                await _aggregate(connection, five_minutes, key, first, last + SLOT)
                await _aggregate(connection, hours, key, first // HOUR * HOUR, last // HOUR * HOUR + HOUR)
            done = tuple_(pending.c.controller, pending.c.time) <= tuple_(slots[-1].controller, slots[-1].time)
            await connection.execute(delete(pending).where(done))
        yield


def _spans(slots: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield controller, first and last time of neighbouring *slots*.

    What lies between them is computed again, which changes nothing. A span is short, because a clock that was set back
    leaves slots that are far apart.
    """
    key, first = slots[0]
    last = first
    for next_key, slot in slots[1:]:
        if next_key != key or slot - first >= _SLOTS * SLOT:
            yield key, first, last
            key, first = next_key, slot
        last = slot
    yield key, first, last


async def _aggregate(connection: AsyncConnection, table: Table, key: int, start: int, end: int) -> None:
    """Compute the rows of *table* from *start* to *end*."""
    source, length = (readings, SLOT) if table is five_minutes else (five_minutes, HOUR)
    # Not a parameter: PostgreSQL would take two of them for two different expressions.
    start_of_row = source.c.time - source.c.time % literal_column(str(length))
    query = (
        select(source.c.controller, start_of_row, *_AGGREGATED[source.name])
        .where(source.c.controller == key, source.c.time >= start, source.c.time < end)
        .group_by(source.c.controller, start_of_row)
    )
    names = ["controller", "time", "count", *AGGREGATES]
    statement = insert_for(connection, table).from_select(names, query)
    new = statement.excluded
    # A row of more readings stays: they were deleted meanwhile, and now the clock was set back into that time.
    statement = statement.on_conflict_do_update(
        index_elements=[table.c.controller, table.c.time],
        set_={name: new[name] for name in names[2:]},
        where=new["count"] >= table.c["count"],
    )
    await connection.execute(statement)


_AGGREGATED = {
    readings.name: [func.count(), *(aggregated(name, value) for name, value in AGGREGATES.items())],
    five_minutes.name: [
        total(five_minutes.c["count"]),
        *(aggregated(name, five_minutes.c[name]) for name in AGGREGATES),
    ],
}


async def delete_old(connection: AsyncConnection, table: Table, before: float) -> AsyncIterator[None]:
    """Delete the rows of *table* from before a time, in seconds since 1970. Yields after each transaction.

    Readings that are not rolled up yet stay.
    """
    async with connection.begin():
        keys = (await connection.execute(select(controllers.c.key))).scalars().all()
    limit = int(before * 1000) // HOUR * HOUR
    for key in keys:
        while True:
            async with connection.begin():
                kept = select(func.min(pending.c.time)).where(pending.c.controller == key)
                first_pending = (await connection.execute(kept)).scalar()
                end = limit if first_pending is None else min(limit, first_pending)
                old = (table.c.controller == key) & (table.c.time < end)
                chunk = select(table.c.time).where(old).order_by(table.c.time).offset(_DELETED - 1).limit(1)
                last = (await connection.execute(chunk)).scalar()
                if last is not None:
                    old &= table.c.time <= last
                await connection.execute(delete(table).where(old))
            yield
            if last is None:
                break


async def reclaim(connection: AsyncConnection) -> AsyncIterator[None]:
    """Make a SQLite file shorter that is mostly unused. Yields after each transaction. PostgreSQL does it itself."""
    if connection.dialect.name != "sqlite":
        return
    while True:
        async with connection.begin():
            unused = (await connection.exec_driver_sql("PRAGMA freelist_count")).scalar() or 0
            pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar() or 0
            if unused < _PAGES or unused < pages * _UNUSED:
                return
            await connection.exec_driver_sql(f"PRAGMA incremental_vacuum({_PAGES})")
        yield
