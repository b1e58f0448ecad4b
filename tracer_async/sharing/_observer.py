"""Makes exchanges of what a listener receives, and records it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from tracer_async.protocol import Frame
from tracer_async.sharing._direction import Direction
from tracer_async.sharing._pairing import Pair, Pairing
from tracer_async.sharing._undecided import Undecided

if TYPE_CHECKING:
    from tracer_async.capture import Recorder

__all__ = ["ObservedExchange", "Observer"]


class ObservedExchange(NamedTuple):
    """A request and its reply."""

    time: float
    """When the request was received, or else the reply: seconds since 1970, UTC."""
    request: Frame | None
    """None if it was not received, for example because it was damaged."""
    reply: Frame | None
    """None if there was no reply, or if it was damaged."""
    delay: float | None
    """Seconds from the request to the reply. None if one of them is missing."""
    age: float = inf
    """Maximum seconds from the request to the reply. It includes the time for which the request may have waited unread.
    Infinite if one of them is missing."""
    damaged: bool = False
    """Whether damaged bytes came in place of the reply."""


class Observer:
    """Pairs and records what is received in one or two directions.

    *publish* gets each exchange. *is_read* returns whether all bytes that have arrived were read.
    """

    def __init__(
        self,
        directions: int,
        timeout: float,
        publish: Callable[[ObservedExchange], None],
        is_read: Callable[[], bool],
        recorder: Recorder | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pairing = Pairing(timeout)
        self._publish = publish
        self._is_read = is_read
        self._recorder = recorder
        self._timer: asyncio.TimerHandle | None = None
        self._undecided = Undecided()
        if directions == 1:
            self._undecided.decide()
        self.directions: list[Direction] = [Direction(self) for _ in range(directions)]

    def close(self) -> None:
        """Process what was received but not processed yet."""
        for direction in self.directions:
            direction.close()
        self._undecided.decide()
        self._publish_pairs(self._pairing.tick(self._loop.time()))
        if self._timer is not None:
            self._timer.cancel()

    # Called by the directions.

    def learned(self, known: Direction, sender: str) -> None:
        """Record who sends on *known*: with two ports, the other side sends on the other one."""
        if len(self.directions) == 2:
            for direction in self.directions:
                is_other = (direction is not known) == (sender == "controller")
                direction.sender = "client" if is_other else "controller"
            self._undecided.decide()

    def take(self, direction: Direction, frame: Frame, not_before: float) -> None:
        """Take a frame that cannot have come before *not_before*."""
        self._undecided.add(partial(self._take, direction, frame, not_before, self._loop.time()), is_frame=True)

    def damaged(self, direction: Direction, raw: bytes, size: int, not_before: float, at: float) -> None:
        """Take bytes that are no frame, *size* of them damaged. The last of them came at the time *at*.

        It cannot have come before *not_before*.
        """
        self._undecided.add(partial(self._take_damaged, direction, raw, size, not_before, at), is_frame=False)

    def _take(self, direction: Direction, frame: Frame, not_before: float, at: float) -> None:
        known = self._pairing.sender(frame, direction.sender, not_before, at)
        self._record(known, frame.encode(start_up=False), at)
        two_ports = direction.sender is not None
        self._publish_pairs(self._pairing.receive(frame, known, not_before, at, may_be_early=two_ports))

    def _take_damaged(self, direction: Direction, raw: bytes, size: int, not_before: float, at: float) -> None:
        self._record(direction.sender or self._pairing.turn, raw, at)
        # The bytes of a request say nothing about replies.
        if size and direction.sender != "client":
            self._publish_pairs(self._pairing.damaged(size, not_before, at))

    def _record(self, sender: str, data: bytes, at: float) -> None:
        if self._recorder is not None:
            self._recorder.record(sender, data, at, time.time() - (self._loop.time() - at))

    def _publish_pairs(self, pairs: list[Pair]) -> None:
        now, wall = self._loop.time(), time.time()
        for pair in pairs:
            delay = pair.replied_at - pair.asked_at if pair.request and pair.reply else None
            age = inf if delay is None else pair.replied_at - pair.since
            at = wall - (now - pair.asked_at)
            self._publish(ObservedExchange(at, pair.request, pair.reply, delay, age, pair.damaged))
        self._set_timer(self._pairing.deadline())

    def _set_timer(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if when is None else self._loop.call_at(when, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        if self._is_read():
            self._publish_pairs(self._pairing.tick(now))
        else:
            # The event loop was blocked, and some event loops run timers before they read. The reply may have come in
            # time. It is read in the next iteration.
            self._set_timer(now)
