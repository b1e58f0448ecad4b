"""Times of readings that were heard: no two readings of a controller have the same one.

Readings that are read from a port at once, such as after this process did not run for some seconds, have the same time.
Outputs keep one reading for each millisecond, and would lose the others.
"""

from __future__ import annotations

from math import inf

from tracer_async import Reading

__all__ = ["DistinctTimes"]

# Seconds. A time that is earlier than the one before by more than this means that the clock was set back. A time is
# computed from two clocks that are not read at the same moment, so that it can be less by a little.
_JITTER = 0.1


class DistinctTimes:
    """Moves the time of a reading to the next millisecond that is free, if another reading has its millisecond."""

    def __init__(self) -> None:
        # The time that the last reading came with, and the millisecond that it was given.
        self._came_with = -inf
        self._last = 0

    def distinct(self, reading: Reading) -> Reading:
        """Return *reading*, with a later time if it needs one. Readings keep their order."""
        is_set_back = reading.time < self._came_with - _JITTER
        is_free = self._came_with == -inf or round(reading.time * 1000) > self._last
        self._came_with = reading.time
        if is_free or is_set_back:
            self._last = round(reading.time * 1000)
            return reading
        self._last += 1
        moved = self._last / 1000
        # The measurement is as old as before, and so older at the later time.
        return reading._replace(time=moved, age=reading.age + moved - reading.time)
