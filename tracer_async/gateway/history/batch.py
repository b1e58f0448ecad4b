"""One transaction of the history: a batch of events becomes rows.

Each statement can be repeated. After a connection was lost during a commit nobody knows whether the rows are there;
then the batch is written again, and rows that are there already stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any, TypeVar

from sqlalchemy import Table, case, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from tracer_async import Reading, RealtimeData
from tracer_async.gateway.events import ControllerEvent
from tracer_async.gateway.history.schema import FLAGS, SLOT, controllers, days, pending, readings
from tracer_async.records import rounded_age

__all__ = ["STATEMENT_ROWS", "insert_for", "write"]

STATEMENT_ROWS = 500
"""The most rows of one statement. Preparing 60,000 rows at once stops the event loop for 0.2 s."""

T = TypeVar("T")
_Row = dict[str, Any]
_Energies = dict[tuple[int, date], tuple[float, float]]


def insert_for(connection: AsyncConnection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that has ON CONFLICT. Both databases have it, with the same methods."""
    return (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(table)


async def write(connection: AsyncConnection, events: Sequence[ControllerEvent]) -> None:
    """Write *events*. Needs a transaction."""
    keys = await _keys(connection, {event.controller.id for event in events})
    add = insert_for(connection, readings).on_conflict_do_nothing()
    slots: set[tuple[int, int]] = set()
    energies: _Energies = {}
    for chunk in _chunks(events):
        rows = [_reading(keys[event.controller.id], event.reading, data) for event, data in _with_data(chunk)]
        slots.update((row["controller"], row["time"] - row["time"] % SLOT) for row in rows)
        _collect(energies, keys, chunk)
        if rows:
            await connection.execute(add, rows)
    add = insert_for(connection, pending).on_conflict_do_nothing()
    for slot_chunk in _chunks(sorted(slots)):
        await connection.execute(add, [{"controller": key, "time": time} for key, time in slot_chunk])
    await _write_days(connection, energies)


async def _keys(connection: AsyncConnection, ids: set[str]) -> dict[str, int]:
    """Return the number of each controller. Numbers are given to new ones."""
    known = select(controllers.c.id, controllers.c.key)
    keys = {row.id: row.key for row in await connection.execute(known)}
    missing = sorted(ids - keys.keys())
    if missing:
        add = insert_for(connection, controllers).on_conflict_do_nothing()
        for chunk in _chunks(missing):
            await connection.execute(add, [{"id": identifier} for identifier in chunk])
        keys = {row.id: row.key for row in await connection.execute(known)}
    return keys


def _with_data(events: Iterable[ControllerEvent]) -> Iterator[tuple[ControllerEvent, RealtimeData]]:
    for event in events:
        if event.reading.data is not None:
            yield event, event.reading.data


def _reading(key: int, reading: Reading, data: RealtimeData) -> _Row:
    age = rounded_age(reading.age)
    return {
        "controller": key,
        "time": round(reading.time * 1000),
        "battery_voltage": round(data.battery_voltage * 100),
        "pv_voltage": round(data.pv_voltage * 100),
        "load_current": round(data.load_current * 100),
        "charge_current": round(data.charge_current * 100),
        "over_discharge_voltage": round(data.over_discharge_voltage * 100),
        "battery_full_voltage": round(data.battery_full_voltage * 100),
        "battery_temperature": data.battery_temperature,
        "flags": sum(bool(getattr(data, name)) << bit for bit, name in enumerate(FLAGS)),
        "reserved": data.reserved,
        "age": None if age is None else round(age * 1000),
    }


def _collect(energies: _Energies, keys: dict[str, int], events: Iterable[ControllerEvent]) -> None:
    """Add the energies of *events*, the largest of each day."""
    for event in events:
        energy = event.energy
        if energy.day is None:
            continue
        for day, charge, load in filter(None, (energy.before, (energy.day, energy.charge_today, energy.load_today))):
            of_day = keys[event.controller.id], day
            charge_before, load_before = energies.get(of_day, (0.0, 0.0))
            energies[of_day] = max(charge_before, charge), max(load_before, load)


async def _write_days(connection: AsyncConnection, energies: _Energies) -> None:
    """Write the energies of days. They never become less: events may be older than what is there."""
    statement = insert_for(connection, days)
    new = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=[days.c.controller, days.c.day],
        set_={
            "charge": case((new.charge > days.c.charge, new.charge), else_=days.c.charge),
            "load": case((new.load > days.c.load, new.load), else_=days.c.load),
        },
    )
    for chunk in _chunks(sorted(energies.items())):
        rows = [{"controller": key, "day": day, "charge": charge, "load": load} for (key, day), (charge, load) in chunk]
        await connection.execute(statement, rows)


def _chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), STATEMENT_ROWS):
        yield rows[start : start + STATEMENT_ROWS]
