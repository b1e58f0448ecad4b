"""A timer wheel: thousands of callbacks, on one timer of the event loop.

An event loop keeps its timers in order one by one. With thousands of them that costs more than a tenth of all that
polling takes, so time is cut into slots here: what is due within a slot is called at its end, in the order in which it
came.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol

__all__ = ["CallAt", "Timer", "TimerWheel", "WheelTimer"]

# Seconds: this much late at most is a callback. Each slot in which anything is due costs a turn of the loop.
_SLOT = 0.005


class Timer(Protocol):
    """What can be cancelled before it is due: an asyncio.TimerHandle, or a `WheelTimer`."""

    def cancel(self) -> None:
        """Take it back."""


CallAt = Callable[[float, Callable[[], None]], Timer]
"""How a callback is scheduled, at a time on the loop's clock: ``loop.call_at``, or `TimerWheel.call_at`."""


class WheelTimer:
    """A callback that is due, unless it is cancelled before."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call it. It may be done again, and afterwards."""
        self.callback = None


class TimerWheel:
    """Calls back at about the time, up to 5 ms late, within the running event loop."""

    def __init__(self) -> None:
        self._slots: dict[int, list[WheelTimer]] = {}
        # The numbers of the slots that hold anything, as a heap.
        self._order: list[int] = []
        self._timer: asyncio.Handle | None = None
        self._timer_slot = 0

    def call_at(self, when: float, callback: Callable[[], None]) -> WheelTimer:
        """Schedule *callback* for the end of the slot in which *when* lies, on the loop's clock."""
        due = WheelTimer(callback)
        slot = math.ceil(when / _SLOT)
        others = self._slots.get(slot)
        if others is None:
            self._slots[slot] = [due]
            heappush(self._order, slot)
            if self._timer is None or slot < self._timer_slot:
                self._set_timer()
        else:
            others.append(due)
        return due

    def close(self) -> None:
        """Cancel everything that is not being called at this moment."""
        self._slots.clear()
        self._order.clear()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._order:
            self._timer_slot = self._order[0]
            loop = asyncio.get_running_loop()
            when = self._timer_slot * _SLOT
            # uvloop calls all timers that are due before it reads anything. So after a stall this is no timer.
            self._timer = loop.call_at(when, self._wake) if when > loop.time() else loop.call_soon(self._wake)

    def _wake(self) -> None:
        """Call what is due in the first slot. After a stall the loop turns between slots, so that links are read."""
        loop = asyncio.get_running_loop()
        over = self._slots.pop(heappop(self._order))
        self._timer = None
        try:
            for due in over:
                if due.callback is not None:
                    try:
                        due.callback()
                    except (SystemExit, KeyboardInterrupt):
                        raise
                    except BaseException as error:  # noqa: BLE001  # as the loop does: the others are still called
                        loop.call_exception_handler({"message": f"{due.callback} failed", "exception": error})
        finally:
            if self._timer is None:  # no callback has scheduled anything
                self._set_timer()
