"""An event loop that runs faster than real time, and the clock that all processes of a run share."""

from __future__ import annotations

import asyncio
import selectors
import time

__all__ = ["SCALE", "FastLoop", "fast_time", "make_wall_clock_fast"]

SCALE = 5.0
"""How many seconds of the fast clock pass in a second. A copy of a reply must follow it within 0.25 s of that clock. A
machine that is busy may hold up a process for some 10 ms, so the clock must not be much faster."""


def fast_time() -> float:
    """Return the seconds of the fast clock: the same in all processes and threads of this machine."""
    return time.monotonic() * SCALE


def make_wall_clock_fast() -> None:
    """Make the wall clock of this process run on fast time too, so that both clocks advance at the same rate."""
    time.time = fast_time


class _FastSelector(selectors.SelectSelector):
    """Waits on the fast clock. Not epoll: it would round each wait up to a millisecond."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout / SCALE if timeout else timeout)


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop on the fast clock."""

    def __init__(self) -> None:
        super().__init__(_FastSelector())

    def time(self) -> float:
        """See `asyncio.AbstractEventLoop`."""
        return fast_time()
