"""The clock that tells how old a reading is, and how long the span between two readings was.

``time.monotonic`` stops while the machine is suspended. After that, a reading of hours ago would look new, and the time
would be missing in the energy's unknown time.
"""

from __future__ import annotations

import sys
import time

__all__ = ["uptime"]

if sys.platform == "linux":

    def uptime() -> float:
        """Return seconds of a clock that nobody sets, and that goes on while the machine is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

elif sys.platform == "darwin":

    def uptime() -> float:
        """Return seconds of a clock that nobody sets, and that goes on while the machine is suspended."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

else:

    def uptime() -> float:
        """Return seconds of a clock that nobody sets. On Windows it goes on while the machine is suspended."""
        return time.monotonic()
