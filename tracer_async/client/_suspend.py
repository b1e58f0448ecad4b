"""Whether the machine was suspended. The clock of the event loop does not count that time.

After a suspend nothing shows how old the received bytes are, so the connection is opened again.
"""

from __future__ import annotations

import sys
import time

__all__ = ["SuspendWatch", "suspended_seconds"]

# Seconds. `suspended_seconds` reads two clocks, and the process may be interrupted between them.
_TOLERANCE = 0.5

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


class SuspendWatch:
    """Notices that the machine was suspended since this was created or restarted."""

    __slots__ = ("_limit",)

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was before."""
        self._limit = suspended_seconds() + _TOLERANCE

    def noticed(self) -> bool:
        """Return whether the machine was suspended."""
        return suspended_seconds() > self._limit

    def seconds(self) -> float:
        """Return for how many seconds the machine was suspended, 0 if it was not."""
        beyond = suspended_seconds() - self._limit
        return beyond + _TOLERANCE if beyond > 0 else 0.0
