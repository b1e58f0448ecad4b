"""Holds what two ports receive until it is known which one carries the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Undecided"]

# Seconds for which a frame is held. Most masters read more often, and a reading shows who sends on which port.
_HOLD = 10.0

# Limit for what is held. 10 s of exchanges have fewer parts: only noise gets here.
_MOST_HELD = 256


class Undecided:
    """What was received, in order of arrival, as functions that process it.

    If a frame has waited for 10 s, or too much is held, nothing is held any more, as after `decide`. An exchange is
    then reported at once, but its frames have to be told apart as on one wire for both directions.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._held: list[Callable[[], None]] = []
        self._has_frame = False
        self._timer: asyncio.TimerHandle | None = None
        self._decided = False

    def add(self, process: Callable[[], None], *, is_frame: bool) -> None:
        """Call *process* when it is decided, which may be at once."""
        if self._decided:
            process()
            return
        self._held.append(process)
        if len(self._held) > _MOST_HELD:
            self._end_of_wait()
        elif self._timer is None or (is_frame and not self._has_frame):
            self._stop_timer()
            self._timer = self._loop.call_later(_HOLD, self._end_of_wait)
        self._has_frame |= is_frame

    def decide(self) -> None:
        """Process what is held, and hold nothing any more."""
        self._decided = True
        self._process_held()

    def _end_of_wait(self) -> None:
        # Noise alone ends no wait: it may come long before the first exchange.
        self._decided = self._has_frame
        self._process_held()

    def _process_held(self) -> None:
        self._stop_timer()
        held, self._held = self._held, []
        for process in held:
            process()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
