"""A timer wheel: thousands of callbacks, on one timer of the event loop.

An event loop sorts all its timers. With thousands of them this takes more than a tenth of the time of polling. So this
module divides time into slots: all callbacks that are due within a slot are called at its end, in the order in which
they were scheduled.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol

__all__ = ["CallAt", "Timer", "TimerWheel", "WheelTimer"]

# Length of a slot in seconds, and the maximum delay of a callback. Each slot with a callback takes an iteration of the
# event loop, so a shorter slot would cost more.
_SLOT = 0.005


class Timer(Protocol):
    """A scheduled callback: an asyncio.TimerHandle, or a `WheelTimer`."""

    def cancel(self) -> None:
        """Do not call it."""


CallAt = Callable[[float, Callable[[], None]], Timer]
"""Schedules a callback at a time of the loop's clock: ``loop.call_at``, or `TimerWheel.call_at`."""


class WheelTimer:
    """A scheduled callback."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call it. May be called again, and after the callback."""
        # It stays in its slot: removing it from the list would take longer than skipping it.
        self.callback = None


class TimerWheel:
    """Calls callbacks up to 5 ms late, in the running event loop."""

    def __init__(self) -> None:
        self._slots: dict[int, list[WheelTimer]] = {}
        # The numbers of the slots that are not empty, as a heap.
        self._order: list[int] = []
        self._timer: asyncio.Handle | None = None
        self._timer_slot = 0

    def call_at(self, when: float, callback: Callable[[], None]) -> WheelTimer:
        """Schedule *callback* for the end of the slot that contains *when*, a time of the loop's clock."""
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
        """Cancel all callbacks, except those of the slot that is being called now."""
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
            # uvloop calls all due timers before it reads any input. So after a stall, when all slots are due,
            # `call_soon` lets it read input between them.
            self._timer = loop.call_at(when, self._wake) if when > loop.time() else loop.call_soon(self._wake)

    def _wake(self) -> None:
        """Call the callbacks of the first slot. After a stall, the loop reads input before the next slot."""
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
                    except BaseException as error:  # noqa: BLE001  # as the event loop does: the others are still called
                        loop.call_exception_handler({"message": f"{due.callback} failed", "exception": error})
        finally:
            if self._timer is None:  # no callback has scheduled anything
                self._set_timer()
