"""How long the machine was suspended. The clock of the event loop does not count that time.

After a suspend nothing shows how old the received bytes are, so the connection is opened again.
"""

from __future__ import annotations

import sys
import time

__all__ = ["SUSPEND_TOLERANCE", "suspended_seconds"]

SUSPEND_TOLERANCE = 0.5
"""Seconds of tolerance: `suspended_seconds` reads two clocks, and the process may be interrupted between them."""

if sys.platform == "linux":

    def suspended_seconds() -> float:
        """Return the seconds that the machine was suspended since it was started."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()

elif sys.platform == "darwin":

    def suspended_seconds() -> float:
        """Return the seconds that the machine was suspended since it was started, plus a constant."""
        return time.clock_gettime(time.CLOCK_MONOTONIC) - time.monotonic()

else:

    def suspended_seconds() -> float:
        """Return 0. On Windows the clock continues during a suspend, so requests and windows expire as usual."""
        return 0.0
