"""How long a command that is read now may have waited in a socket, because this process did not run meanwhile."""

from __future__ import annotations

import asyncio
import math
from typing import NoReturn

from tracer_async.gateway._clock import uptime

__all__ = ["Stalls"]

# Seconds between two looks at the clock.
_BEAT = 0.1
# Seconds since the last look from which on the process did not run.
_STALL = 2 * _BEAT
# Seconds after a stall, at most, in which commands are read that had arrived meanwhile.
_AFTER_STALL = 1.0


class Stalls:
    """Notices that this process did not run: it was stopped, its event loop was blocked, or the machine slept."""

    __slots__ = ("_begun", "_ran_at", "_read_by")

    def __init__(self) -> None:
        # When `watch` ran last.
        self._ran_at = uptime()
        # When the last stall began, and until when the commands from that time are read.
        self._begun = self._read_by = -math.inf

    async def watch(self) -> NoReturn:
        """Look at the clock regularly. What arrives before this runs is not judged."""
        self._ran_at = uptime()
        while True:
            await asyncio.sleep(_BEAT)
            now = uptime()
            stall = now - self._ran_at
            # A stall in the time after another one does not replace it: commands of the first one may still be read.
            if stall > _STALL and now >= self._read_by:
                self._begun, self._read_by = self._ran_at, now + min(stall, _AFTER_STALL)
            self._ran_at = now

    def waited(self) -> float:
        """Return the seconds that a command may have waited before it was read just now. 0 if there was no stall.

        After a stall either `watch` or the reader of commands is first to run, so both look at the clock.
        """
        now = uptime()
        if now < self._read_by:
            return now - self._begun
        idle = now - self._ran_at
        return idle if idle > _STALL else 0.0
