"""When a listener has heard nothing for so long that its last reading is old. Owns no clock."""

from __future__ import annotations

from collections import deque
from statistics import median

__all__ = ["Silence"]

# Seconds without a reading after which the last one is old, at least.
_LEAST = 10.0
# The same, in usual gaps between two readings.
_GAPS = 3

# The usual gap is the median of the last ones, so that a pause of the meter hardly changes it.
_KNOWN_FROM, _REMEMBERED = 3, 9


class Silence:
    """The rule. Times are in seconds on any one clock. *received* counts whatever was received until now."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._received = 0
        self._has_reading = False
        self._gaps: deque[float] = deque(maxlen=_REMEMBERED)

    def end(self, now: float, received: int) -> None:
        """Note that there is a reading."""
        if self._has_reading:
            self._gaps.append(now - self._since)
        self._since, self._received, self._has_reading = now, received, True

    @property
    def usual_gap(self) -> float | None:
        """Seconds between two readings, or None if it is not known yet."""
        return median(self._gaps) if len(self._gaps) >= _KNOWN_FROM else None

    def words(self, now: float, received: int) -> str | None:
        """Return the error, or None while the last reading may be shown as the present one.

        It is old after 10 s, or after 3 times the usual gap if that is longer.
        """
        seconds = now - self._since
        if seconds < max(_LEAST, _GAPS * (self.usual_gap or 0.0)):
            return None
        if received == self._received:
            return f"nothing heard for {seconds:.0f} s"
        return f"no reading heard for {seconds:.0f} s; requests or damaged bytes were"
