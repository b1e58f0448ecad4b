"""Sun, clouds and temperature over simulated days: functions of a seed and a time, with no state between two calls.

So the weather of a moment is the same however often, and in whatever steps, a simulation gets there. Time is in
simulated seconds since the midnight that began the first day.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Weather", "noise"]

_MASK = (1 << 64) - 1


# Neighbouring moments ask for the same values again and again.
@lru_cache(maxsize=256)
def _knot(seed: int, index: int) -> float:
    """Return a number of -1 to 1 that depends on both arguments without a visible pattern (splitmix64)."""
    z = (seed * 0xD1342543DE82EF95 + (index + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return (z ^ z >> 31) / (1 << 63) - 1.0


def noise(seed: int, at: float, period: float) -> float:
    """Return smooth noise of -1 to 1, mean 0: a random value every *period* seconds, eased from each to the next."""
    index, rest = divmod(at, period)
    part = rest / period
    left, right = _knot(seed, int(index)), _knot(seed, int(index) + 1)
    return left + (right - left) * part * part * (3.0 - 2.0 * part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """The weather over one panel and one battery."""

    seed: int
    sunrise: float
    """Hour of the day."""
    sunset: float
    """Hour of the day."""
    cloudiness: float
    """Mean cloud cover, 0 to 1; at 0 the sky is always clear."""
    temperature: float
    """Mean temperature of the battery, degrees Celsius."""

    def cloud_cover(self, at: float) -> float:
        """Return how much of the sun is covered, 0 to 1."""
        if not self.cloudiness:
            return 0.0
        seed = self.seed
        # Days differ, an afternoon differs from its morning, and single clouds pass within some 20 seconds.
        days = noise(seed, at, 50_000.0)
        hours = noise(seed + 1, at, 2_300.0)
        passing = noise(seed + 2, at, 23.0) + 0.3 * noise(seed + 3, at, 5.0)
        cover = self.cloudiness * (1.0 + 0.8 * days + 0.7 * hours + 0.35 * passing)
        return min(max(cover, 0.0), 1.0)

    def irradiance(self, at: float) -> float:
        """Return the light on the panel in W/m2: 0 at night, up to 1000 on a clear noon."""
        part = (at / 3600.0 % 24.0 - self.sunrise) / (self.sunset - self.sunrise)
        if not 0.0 < part < 1.0:
            return 0.0
        return 1000.0 * math.pow(math.sin(math.pi * part), 1.2) * (1.0 - 0.8 * self.cloud_cover(at))

    def battery_temperature(self, at: float) -> float:
        """Return degrees Celsius: coldest before dawn, warmest in the afternoon, as in a shed."""
        hour = at / 3600.0 % 24.0
        return (
            self.temperature
            + 3.5 * math.sin(2.0 * math.pi * (hour - 10.0) / 24.0)
            + 0.8 * noise(self.seed + 4, at, 40_000.0)
        )
