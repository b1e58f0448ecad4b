"""Counts the energy of one controller from its readings. No I/O and no clock: times come with the readings.

Three rules:

1. Spans of time are measured by the monotonic clock. The wall clock only says to which local day energy belongs, so a
   clock that is set back or forward adds nothing and takes nothing away. After a restart, the time that both clocks
   have measured is unknown time, so a machine that starts with a wrong clock adds no time that has not passed.
2. Time is either covered by two readings, at most three intervals apart, or it is unknown. Unknown time has no energy.
   Time while the machine is switched off is neither: nothing measures it reliably.
3. A sum only grows. A day that the wall clock left and enters again continues with the sum that it had.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from math import inf

from tracer_async import Reading, RealtimeData
from tracer_async.gateway.events import DayEnergy, EnergyTotals

__all__ = ["MAX_DAYS", "MAX_GAP_INTERVALS", "EnergyMeter", "MeterState"]

MAX_DAYS = 40
"""Days whose sums are kept. Then those that were not counted for the longest time are dropped."""
MAX_GAP_INTERVALS = 3
"""Longest span between two readings that counts as energy, in intervals of the controller."""

# Seconds since 1970: the times that every platform can convert to a date, up to the year 3000.
_EARLIEST, _LATEST = 0.0, 32_503_680_000.0
# Seconds to which the change of the date is found. The wall time is a float with a resolution of 0.2 microseconds.
_SPLIT_RESOLUTION = 1e-5
# Watts. The protocol cannot express more: 655.35 V times 655.35 A.
_MAX_POWER = 430_000.0


@dataclass(frozen=True, slots=True)
class MeterState:
    """All that a meter keeps over a restart."""

    charge: float = 0.0
    """Watt-hours into the battery since the counter began."""
    load: float = 0.0
    """Watt-hours to the load since the counter began."""
    unknown: float = 0.0
    """Seconds since the counter began that no pair of readings covers, without those while the machine was off."""
    time: float | None = None
    """Until when time is accounted for, in seconds since 1970; None before the first reading."""
    days: tuple[DayEnergy, ...] = ()
    """The sums of at most `MAX_DAYS` local days. The one that was counted last is the last one."""
    monotonic: float | None = None
    """`time` in seconds of the monotonic clock, which begins at 0 when the machine starts; None if that is unknown."""

    def totals(self) -> EnergyTotals:
        """Return what outputs publish."""
        day, charge, load = self.days[-1] if self.days else (None, 0.0, 0.0)
        before = self.days[-2] if len(self.days) > 1 else None
        return EnergyTotals(self.charge, self.load, day, charge, load, self.unknown, before)


class EnergyMeter:
    """The sums of one controller. *zone* says when a day begins; None is the zone of the machine."""

    def __init__(self, zone: tzinfo | None, state: MeterState | None = None) -> None:
        state = state or MeterState()
        self._zone = zone
        self._charge, self._load, self._unknown = state.charge, state.load, state.unknown
        # In the order in which they were counted last.
        self._days = {entry.day: entry for entry in state.days}
        # Time is accounted for until these moments of the two clocks.
        self._time, self._monotonic = state.time, state.monotonic
        # Whether that was in an earlier run, and maybe before the machine was started again.
        self._restarted = True
        # Watts into the battery and to the load at that moment; None if they are unknown.
        self._powers: tuple[float, float] | None = None

    @property
    def state(self) -> MeterState:
        """What has to be kept over a restart."""
        days = tuple(self._days.values())
        return MeterState(self._charge, self._load, self._unknown, self._time, days, self._monotonic)

    def record(self, reading: Reading, monotonic: float, interval: float) -> None:
        """Count a reading, or an error instead of one. Never raises.

        *monotonic* is when it arrived, in seconds of the monotonic clock; *interval* the seconds between two readings.
        """
        if not (_EARLIEST <= reading.time <= _LATEST and 0.0 <= monotonic < inf):
            return
        powers = _powers(reading.data)
        elapsed = self._elapsed(reading.time, monotonic)
        bridgeable = self._powers is not None and elapsed is not None and elapsed <= MAX_GAP_INTERVALS * interval
        if powers is None and (bridgeable or elapsed is None):
            # The next reading may still be near enough. Before the first reading, nothing is counted.
            return
        if powers is not None and self._powers is not None and elapsed is not None and bridgeable:
            self._count(self._powers, powers, elapsed, reading.time)
        elif elapsed is not None:
            self._unknown += elapsed
        if powers is not None:
            self._add(self._local_day(reading.time), 0.0, 0.0)
        self._powers, self._time, self._monotonic, self._restarted = powers, reading.time, monotonic, False

    def _elapsed(self, time: float, monotonic: float) -> float | None:
        """Return the seconds that are not accounted for yet; None before the first reading."""
        if self._time is None:
            return None
        if self._monotonic is None:  # The file was written by a version that did not store it.
            return 0.0
        if not self._restarted:
            return max(monotonic - self._monotonic, 0.0)
        # The monotonic clock goes on over a restart of the gateway, and begins at 0 with the machine. Then the gateway
        # was stopped at least as long as the machine runs. This is never more than the time that has passed, unless the
        # file comes from another machine. The wall clock limits the error of that.
        stopped = monotonic - self._monotonic if monotonic >= self._monotonic else monotonic
        return max(min(stopped, time - self._time), 0.0)

    def _count(self, before: tuple[float, float], after: tuple[float, float], seconds: float, end: float) -> None:
        """Add the trapezoid between two readings that are *seconds* apart, the second one at the wall time *end*."""
        hours = seconds / 3600.0
        charge = (before[0] + after[0]) / 2.0 * hours
        load = (before[1] + after[1]) / 2.0 * hours
        self._charge += charge
        self._load += load
        # If the wall clock was set in between, the clock of the second reading counts for the whole span.
        for day, share in self._split(end - seconds, end):
            self._add(day, charge * share, load * share)

    def _add(self, day: date, charge: float, load: float) -> None:
        """Add watt-hours to a day, and make it the last one."""
        _, old_charge, old_load = self._days.pop(day, (day, 0.0, 0.0))
        self._days[day] = DayEnergy(day, old_charge + charge, old_load + load)
        if len(self._days) > MAX_DAYS:
            # Not the oldest date: after a clock in the far future was corrected, today would be the oldest one.
            del self._days[next(iter(self._days))]

    def _local_day(self, time: float) -> date:
        return datetime.fromtimestamp(time, self._zone).date()

    def _split(self, start: float, end: float, share: float = 1.0) -> Iterator[tuple[date, float]]:
        """Divide a span of wall time where the local date changes; return days and shares, in the order of time.

        Bisection needs no rules for clock changes at midnight, which skip midnight or repeat it.
        """
        last = self._local_day(end)
        if self._local_day(start) == last or end - start < _SPLIT_RESOLUTION:
            yield last, share
        else:
            middle = (start + end) / 2.0
            yield from self._split(start, middle, share / 2.0)
            yield from self._split(middle, end, share / 2.0)


def _powers(data: RealtimeData | None) -> tuple[float, float] | None:
    """Return watts into the battery and to the load; None if there is no data, or none that can be counted."""
    if data is None:
        return None
    charge, load = data.charge_power, data.load_power
    return (charge, load) if 0.0 <= charge <= _MAX_POWER and 0.0 <= load <= _MAX_POWER else None
