"""Sun, clouds and temperature over simulated days: pure functions of a seed and a time.

There is no state between two calls, so the weather at a time does not depend on the steps of the simulation. Times are
in simulated seconds since midnight of the first day.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Weather", "noise"]

_MASK = (1 << 64) - 1


# Cached, because consecutive calls of noise() need the same two values until a period ends.
@lru_cache(maxsize=256)
def _random_value(seed: int, index: int) -> float:
    """Return a pseudo-random number of -1 to 1 for the two arguments (splitmix64)."""
    z = (seed * 0xD1342543DE82EF95 + (index + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return (z ^ z >> 31) / (1 << 63) - 1.0


def noise(seed: int, at: float, period: float) -> float:
    """Return smooth noise of -1 to 1, mean 0: a random value every *period* seconds, interpolated in between."""
    index, seconds = divmod(at, period)
    fraction = seconds / period
    left, right = _random_value(seed, int(index)), _random_value(seed, int(index) + 1)
    return left + (right - left) * fraction * fraction * (3.0 - 2.0 * fraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """The weather over one panel and one battery."""

    seed: int
    sunrise: float
    """Hour of the day."""
    sunset: float
    """Hour of the day."""
    cloudiness: float
    """Mean cloud cover, 0 to 1. At 0 the sky is always clear."""
    temperature: float
    """Mean temperature of the battery, degrees Celsius."""

    def cloud_cover(self, at: float) -> float:
        """Return the cloud cover, 0 to 1."""
        if not self.cloudiness:
            return 0.0
        seed = self.seed
        # Three time scales: days differ, hours within a day differ, and single clouds pass within about 20 s. Each uses
        # its own seed: with one seed, the three would rise and fall together.
        days = noise(seed, at, 50_000.0)
        hours = noise(seed + 1, at, 2_300.0)
        passing = noise(seed + 2, at, 23.0) + 0.3 * noise(seed + 3, at, 5.0)
        cover = self.cloudiness * (1.0 + 0.8 * days + 0.7 * hours + 0.35 * passing)
        return min(max(cover, 0.0), 1.0)

    def irradiance(self, at: float) -> float:
        """Return the irradiance on the panel in W/m2: 0 at night, up to 1000 at noon under a clear sky."""
        fraction = (at / 3600.0 % 24.0 - self.sunrise) / (self.sunset - self.sunrise)
        if not 0.0 < fraction < 1.0:
            return 0.0
        return 1000.0 * math.pow(math.sin(math.pi * fraction), 1.2) * (1.0 - 0.8 * self.cloud_cover(at))

    def battery_temperature(self, at: float) -> float:
        """Return degrees Celsius: coldest before dawn, warmest in the afternoon, as in an unheated shed."""
        hour = at / 3600.0 % 24.0
        return (
            self.temperature
            + 3.5 * math.sin(2.0 * math.pi * (hour - 10.0) / 24.0)
            + 0.8 * noise(self.seed + 4, at, 40_000.0)
        )
