"""How long the machine has been suspended: time that the event loop's clock does not count."""

from __future__ import annotations

import sys
import time

__all__ = ["suspended_seconds"]

if sys.platform == "linux":

    def suspended_seconds() -> float:
        """Return the seconds that the machine was suspended since it was started."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()

elif sys.platform == "darwin":

    def suspended_seconds() -> float:
        """Return the seconds that the machine was suspended since it was started, up to a constant."""
        return time.clock_gettime(time.CLOCK_MONOTONIC) - time.monotonic()

else:

    def suspended_seconds() -> float:
        """Return 0: the clock goes on while Windows is suspended, so that what waited then has expired by itself."""
        return 0.0
