"""Many controllers in one event loop: one schedule for all of them, one iterator of what they say.

No controller has a task that waits for its turn, nor a timer of the event loop: one schedule serves all of them. An
answer is turned into a reading in the callback that received it.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tracer_async.client._line import Request
from tracer_async.client._timer_wheel import Schedule
from tracer_async.client.client import TracerClient
from tracer_async.client.reading import Reading
from tracer_async.errors import LinkClosedError, TracerError
from tracer_async.protocol import Frame, ReadRealtime

if TYPE_CHECKING:
    from types import TracebackType

    from tracer_async.transport.opening import TransportFactory

__all__ = ["Fleet", "FleetReading"]

_READ = ReadRealtime()

# Seconds. No line is faster than the one, and what is due in thirty years need not be.
_SHORTEST, _LONGEST = 0.001, 1e9

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
        self._schedule = Schedule()
        self._readings: asyncio.Queue[tuple[_Member, Reading] | None] = asyncio.Queue()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every controller; the iteration ends behind what has been read already. It may be called again."""
        if not self._closed:
            self._closed = True
            self._schedule.close()
            self._readings.put_nowait(None)
            for member in self._members.values():
                member.client._close()
        await asyncio.gather(*(member.client.aclose() for member in self._members.values()))
        self._members.clear()

    def add(
        self, url: str | TransportFactory, *, interval: float = 5.0, name: str | None = None, **options: Any
    ) -> TracerClient:
        """Add a controller, to be read every *interval* seconds from now on; return its client.

        It comes up without a link if there is none. *name* is its URL unless given, *options* are those of
        `TracerClient`. Needs a running event loop. Raises ValueError for an interval under a millisecond, or a name
        that is taken; AddressError and MissingExtraError as `TracerClient` does; LinkClosedError once the fleet is
        closed.
        """
        if not _SHORTEST <= interval <= _LONGEST:
            raise ValueError(f"interval must be {_SHORTEST:g} to {_LONGEST:g} seconds, not {interval}")
        client = TracerClient(url, start_offline=True, **options)
        name = client.url if name is None else name
        if self._closed:
            raise LinkClosedError(client.url, "the fleet is closed")
        if name in self._members:
            raise ValueError(f"there is a controller named {name!r} already")
        client._start(self._gate, self._schedule.call_at)
        start = asyncio.get_running_loop().time() + self._added * _STAGGER % 1.0 * interval
        self._added += 1
        self._members[name] = _Member(name, client, interval, start, self)
        return client

    async def remove(self, name: str) -> None:
        """Stop polling a controller and close its client; no reading of it is given out any more.

        Raises KeyError if there is none of that name.
        """
        member = self._members.pop(name)
        member.remove()
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
        while True:
            item = await self._readings.get()
            if item is None:
                self._readings.put_nowait(None)  # for whoever else iterates, and for the next call
                raise StopAsyncIteration
            member, reading = item
            if not member.removed:  # by now another one may have its name
                return FleetReading(member.name, reading)


class _Member:
    """One controller of a fleet; it waits for its own answers, in place of a future."""

    __slots__ = (
        "_due",
        "_fleet",
        "_interval",
        "_next",
        "_request",
        "_skipped",
        "_skipped_before",
        "client",
        "name",
        "removed",
    )

    def __init__(self, name: str, client: TracerClient, interval: float, start: float, fleet: Fleet) -> None:
        self.name = name
        self._interval = interval
        self._fleet = fleet
        self._request: Request | None = None
        self._skipped = self._skipped_before = 0
        self._due = start
        self.client = client
        self.removed = False
        self._next = fleet._schedule.call_at(start, self.tick)

    def remove(self) -> None:
        """Ask no more, and give out nothing more."""
        self.removed = True
        self._next.cancel()

    def tick(self) -> None:
        """Ask for a reading, and move on to the first tick that is still ahead."""
        try:
            self._poll()
        except LinkClosedError:  # its user has closed it
            return
        now = asyncio.get_running_loop().time()
        self._due += self._interval
        if self._due <= now:
            missed = math.floor((now - self._due) / self._interval) + 1
            self._skipped += missed
            self._due += missed * self._interval
        self._next = self._fleet._schedule.call_at(self._due, self.tick)

    def _poll(self) -> None:
        """Ask, unless the request before is not answered yet or there is no room for what it would bring."""
        if self._request is not None or self._fleet._readings.qsize() >= self._fleet._capacity:
            self._skipped += 1
            return
        self._skipped_before, self._skipped = self._skipped, 0
        self._request = self.client._open_line.post(_READ, self, share=True)

    def done(self) -> bool:
        """See `Waiter`."""
        return self.removed

    def set_result(self, frame: Frame) -> None:
        """See `Waiter`."""
        request = self._request
        assert request is not None  # noqa: S101  # it is this request that is answered
        try:
            reading = self.client._reading(frame, request.since, request.answered_at)
        except TracerError as error:
            self.set_exception(error)
        else:
            self._put(reading)

    def set_exception(self, error: TracerError) -> None:
        """See `Waiter`."""
        self._put(Reading(time.time(), None, error))

    def _put(self, reading: Reading) -> None:
        self._request = None
        if self._fleet._closed:
            return
        skipped = self._skipped_before
        self._fleet._readings.put_nowait((self, reading._replace(skipped=skipped) if skipped else reading))
