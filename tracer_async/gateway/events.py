"""What the gateway's outputs receive: one event for each reading, the same for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from tracer_async import Reading, SessionStats

__all__ = ["Controller", "ControllerEvent", "DayEnergy", "EnergyTotals"]

# Seconds that an event may take to those who receive it.
_ON_ITS_WAY = 2.0


@dataclass(frozen=True, slots=True)
class Controller:
    """A controller as its outputs call it."""

    name: str
    """The name in the configuration, in topics, labels and URLs: a-z, 0-9, _ and -."""
    title: str
    """The name for people."""
    id: str
    """The stable identifier: `name` unless the configuration gives another one."""
    interval: float
    """Seconds between two readings."""
    switchable: bool = True
    """Whether the gateway can switch the load. It cannot if it only listens to the controller."""
    event_gap: float = 0.0
    """Maximum seconds from one event to the next, also if the controller does not answer."""
    reading_gap: float = 0.0
    """Maximum seconds from one reading to the next, if each request is answered."""

    @property
    def lifetime(self) -> float:
        """Seconds for which an event describes the present. While the gateway works, the next one comes earlier."""
        return max(3 * self.interval, self.event_gap + _ON_ITS_WAY, 10.0)

    @property
    def reading_lifetime(self) -> float:
        """Seconds for which the measurements of a reading are of use. Not more than `lifetime`."""
        return max(3 * self.interval, self.reading_gap)


class DayEnergy(NamedTuple):
    """Energy of one local day."""

    day: date
    charge: float
    """Watt-hours into the battery."""
    load: float
    """Watt-hours to the load."""


@dataclass(frozen=True, slots=True)
class EnergyTotals:
    """Energy of one controller up to a moment. Only values that are on disk are handed out."""

    charge: float = 0.0
    """Watt-hours into the battery since the counter began."""
    load: float = 0.0
    """Watt-hours to the load since the counter began."""
    day: date | None = None
    """The local day that the two values below belong to; None before the first reading."""
    charge_today: float = 0.0
    """Watt-hours into the battery on `day`."""
    load_today: float = 0.0
    """Watt-hours to the load on `day`."""
    unknown: float = 0.0
    """Seconds since the counter began that no reading covers: gaps longer than three intervals, and the time while the
    gateway was stopped, but not while the machine was off."""
    before: DayEnergy | None = None
    """The day that was counted before `day`: what came between the last write of it and midnight is in here only."""


@dataclass(frozen=True, slots=True)
class ControllerEvent:
    """A reading of a controller, or the error that came instead of it."""

    controller: Controller
    reading: Reading
    since: float
    """When the present state began, in seconds since 1970: the first reading, or the first error, without a break."""
    monotonic: float
    """When the reading arrived, in seconds of a clock that is never set and goes on while the machine is suspended."""
    energy: EnergyTotals
    """The totals that were on disk when the reading arrived."""
    stats: SessionStats
    """The counters of the connection to the controller."""

    @property
    def online(self) -> bool:
        """Whether the controller has answered."""
        return self.reading.ok

    def is_current(self, monotonic: float) -> bool:
        """Return whether this still describes the present: the next event is not overdue."""
        return monotonic - self.monotonic <= self.controller.lifetime

    def is_online(self, monotonic: float) -> bool:
        """Return whether the controller answers at present: this is a reading, and not an old one."""
        return self.online and self.is_current(monotonic)

    @property
    def reason(self) -> str | None:
        """Why there is no reading; None if there is one."""
        return None if self.reading.error is None else str(self.reading.error)
