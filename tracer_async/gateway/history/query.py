"""What may be asked of the history, and what it answers."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple, Protocol

from tracer_async.gateway.events import DayEnergy

__all__ = ["MAX_POINTS", "DayEnergy", "HistoryReader", "Point", "Series"]

MAX_POINTS = 1500
"""The most points in one answer."""


class Point(NamedTuple):
    """Mean, minimum and maximum of each quantity within one step. A step without a reading has no point."""

    time: float
    """The beginning of the step, in seconds since 1970."""
    battery_voltage: tuple[float, float, float]
    """Minimum, mean and maximum in V. The same in the fields below, with their units."""
    pv_voltage: tuple[float, float, float]
    """V."""
    charge_power: tuple[float, float, float]
    """W."""
    load_power: tuple[float, float, float]
    """W."""
    battery_temperature: tuple[float, float, float]
    """Degrees Celsius."""


class Series(NamedTuple):
    """Points in the order of their times."""

    step: float
    """Seconds of each point. May be longer than asked for, so that there are at most `MAX_POINTS`."""
    points: list[Point]


class HistoryReader(Protocol):
    """What the web output asks. Both methods raise OSError with a reason for people if the database does not answer."""

    async def series(self, controller_id: str, start: float, end: float, step: float | None = None) -> Series:
        """Return what was measured from *start* to before *end*, seconds since 1970, in steps of *step* seconds."""

    async def days(self, controller_id: str, first: date, last: date) -> list[DayEnergy]:
        """Return the energy of each day from *first* to *last* for which there is a record."""
