"""The ticks of a poll: whole intervals after its start, so that they do not drift."""

from __future__ import annotations

import math

__all__ = ["Ticks"]


class Ticks:
    """The ticks of one poll. Times are in seconds of any monotonic clock."""

    __slots__ = ("_interval", "_start", "_tick", "skipped")

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._start = now
        self._tick = 0
        self.skipped: int = 0
        """Number of ticks that were left out before the present one."""

    def next(self, now: float) -> float:
        """Go to the first tick after *now*, and return its time."""
        # The tolerance is for rounding: without it, a tick that is due exactly now could count as missed.
        due = max(self._tick + 1, math.ceil((now - self._start) / self._interval - 1e-6))
        self.skipped = due - self._tick - 1
        self._tick = due
        return self._start + due * self._interval
