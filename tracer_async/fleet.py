"""Many controllers in one event loop: one schedule for all of them, one iterator of what they say.

No controller has a task that waits for its turn. Time is cut into slots of a few milliseconds, and each controller stands
in the slot in which it is due next; an answer is turned into a reading in the callback that received it.
"""

from __future__ import annotations

import asyncio
import math
import time
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tracer_async.client import TracerClient
from tracer_async.errors import LinkClosedError, TracerError
from tracer_async.polling import Reading
from tracer_async.protocol import Frame, ReadRealtime

if TYPE_CHECKING:
    from types import TracebackType

    from tracer_async.transport.opening import TransportFactory

__all__ = ["Fleet", "FleetReading"]

_READ = ReadRealtime()

# Seconds: all that is due within a slot is asked at its end, so a poll is this much late at most. With thousands of
# controllers, to keep them in order one by one would cost more than a tenth of all the time they take.
_SLOT = 0.005

# The fraction of an interval by which each controller starts after the one before it: however many there are, and
# whichever go, their ticks stay spread evenly.
_STAGGER = (math.sqrt(5) - 1) / 2


class FleetReading(NamedTuple):
    """A reading, and whose it is."""

    name: str
    reading: Reading


class Fleet:
    """Poll many controllers, each at its own interval, and iterate over their readings.

    ::

        async with Fleet() as fleet:
            fleet.add("tcp://bridge-1:8088", interval=5.0)
            fleet.add("tcp://bridge-2:8088", interval=60.0, name="shed")
            async for name, reading in fleet:
                ...

    A controller that does not answer, or cannot be reached, gives readings with an error, and delays no other. While
    *capacity* readings wait to be fetched nothing more is asked: ticks are skipped, and counted in
    `Reading.skipped`. At most *connecting* links are being opened at a time. Raises ValueError for numbers below 1.
    """

    def __init__(self, *, connecting: int = 50, capacity: int = 1000) -> None:
        if connecting < 1 or capacity < 1:
            raise ValueError(f"connecting and capacity must be 1 or more, not {connecting} and {capacity}")
        self._gate = asyncio.Semaphore(connecting)
        self._capacity = capacity
        self._members: dict[str, _Member] = {}
        self._added = 0
        self._due: dict[int, list[_Member]] = {}
        # The numbers of the slots in which somebody is due, as a heap.
        self._slots: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._readings: asyncio.Queue[FleetReading | None] = asyncio.Queue()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every controller; the iteration ends behind what has been read already."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        clients = [member.client for member in self._members.values()]
        self._members.clear()
        self._due.clear()
        self._slots.clear()
        self._readings.put_nowait(None)
        await asyncio.gather(*(client.aclose() for client in clients))

    def add(
        self, url: str | TransportFactory, *, interval: float = 5.0, name: str | None = None, **options: Any
    ) -> TracerClient:
        """Add a controller, to be read every *interval* seconds from now on; return its client.

        It comes up without a link if there is none. *name* is its URL unless given, *options* are those of
        `TracerClient`. Needs a running event loop. Raises ValueError for an interval that is not above 0, or a name
        that is taken; AddressError and MissingExtraError as `TracerClient` does; LinkClosedError once the fleet is
        closed.
        """
        if not 0 < interval < math.inf:
            raise ValueError(f"interval must be above 0 seconds, not {interval}")
        client = TracerClient(url, start_offline=True, **options)
        name = client.url if name is None else name
        if self._closed:
            raise LinkClosedError(client.url, "the fleet is closed")
        if name in self._members:
            raise ValueError(f"there is a controller named {name!r} already")
        client._start(self._gate)
        start = asyncio.get_running_loop().time() + self._added * _STAGGER % 1.0 * interval
        member = self._members[name] = _Member(name, client, interval, start, self._readings)
        self._added += 1
        self._schedule(member)
        self._set_timer()
        return client

    async def remove(self, name: str) -> None:
        """Stop polling a controller and close its client. Raises KeyError if there is none of that name."""
        member = self._members.pop(name)
        member.removed = True
        await member.client.aclose()

    def __getitem__(self, name: str) -> TracerClient:
        """Return the client of a controller, to switch its load for example. Raises KeyError if there is none."""
        return self._members[name].client

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __len__(self) -> int:
        return len(self._members)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FleetReading:
        item = await self._readings.get()
        if item is None:
            self._readings.put_nowait(None)  # for whoever else iterates, and for the next call
            raise StopAsyncIteration
        return item

    def _schedule(self, member: _Member) -> None:
        """Put *member* into the slot in which it is due."""
        slot = math.ceil(member.due / _SLOT)
        others = self._due.get(slot)
        if others is None:
            self._due[slot] = [member]
            heappush(self._slots, slot)
        else:
            others.append(member)

    def _set_timer(self) -> None:
        """Look again at the end of the first slot in which somebody is due."""
        if not self._slots:
            return
        when = self._slots[0] * _SLOT
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_at(when, self._wake)

    def _wake(self) -> None:
        """Poll all that are due."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._slots and self._slots[0] * _SLOT <= now:
            for member in self._due.pop(heappop(self._slots)):
                if not member.removed:
                    member.poll(room=self._readings.qsize() < self._capacity)
                    member.tick_on(now)
                    self._schedule(member)
        self._set_timer()


class _Member:
    """One controller of a fleet; it waits for its own answers, in place of a future."""

    __slots__ = ("_asked", "_interval", "_name", "_readings", "_skipped", "_skipped_before", "client", "due", "removed")

    def __init__(
        self,
        name: str,
        client: TracerClient,
        interval: float,
        start: float,
        readings: asyncio.Queue[FleetReading | None],
    ) -> None:
        self._name = name
        self._interval = interval
        self._readings = readings
        self._asked = False
        self._skipped = self._skipped_before = 0
        self.client = client
        self.due = start
        self.removed = False

    def poll(self, *, room: bool) -> None:
        """Ask for a reading, unless the one before is not answered yet or there is no *room* for it."""
        if self._asked or not room:
            self._skipped += 1
            return
        self._asked = True
        self._skipped_before, self._skipped = self._skipped, 0
        try:
            self.client._open_line.post(_READ, self, share=True)
        except LinkClosedError:  # its user has closed it
            self.removed = True

    def tick_on(self, now: float) -> None:
        """Move on to the first tick that is still ahead."""
        self.due += self._interval
        if self.due <= now:
            missed = math.floor((now - self.due) / self._interval) + 1
            self._skipped += missed
            self.due += missed * self._interval

    def done(self) -> bool:
        """See `Waiter`."""
        return self.removed

    def set_result(self, frame: Frame) -> None:
        """See `Waiter`."""
        try:
            line = self.client._open_line
            reading = self.client._reading(frame, line.since, line.answered_at)
        except TracerError as error:
            self.set_exception(error)
        else:
            self._put(reading)

    def set_exception(self, error: TracerError) -> None:
        """See `Waiter`."""
        self._put(Reading(time.time(), None, error))

    def _put(self, reading: Reading) -> None:
        self._asked = False
        skipped = self._skipped_before
        self._readings.put_nowait(FleetReading(self._name, reading._replace(skipped=skipped) if skipped else reading))
