"""Many controllers in one event loop: one schedule for all of them, and one iterator over all readings.

A controller has no timer of the event loop, and its only task waits until the connection is lost, so thousands of them
stay cheap. An answer is turned into a reading in the callback that received it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Self, Unpack

from tracer_async.client._connection import Connection, running_loop
from tracer_async.client._options import ClientOptions
from tracer_async.client._timer_wheel import CallAt, TimerWheel
from tracer_async.client.client import TracerClient
from tracer_async.client.reading import Reading
from tracer_async.errors import LinkClosedError, TracerError
from tracer_async.protocol import Answer, ReadRealtime, RealtimeData, Request
from tracer_async.protocol._numbers import check_number, check_whole

if TYPE_CHECKING:
    from types import TracebackType

    from tracer_async.transport._opening import TransportFactory

__all__ = ["Fleet", "FleetReading"]

_READ = ReadRealtime()

# The constructor of a NamedTuple calls this. Calling it directly takes half the time.
_new = tuple.__new__

# The fraction of an interval by which each controller starts after the previous one. With the golden ratio the ticks
# are spread evenly for any number of controllers, also after some are removed.
_STAGGER = (math.sqrt(5) - 1) / 2


class FleetReading(NamedTuple):
    """A reading, with the name of its controller."""

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

    A controller that does not answer, or cannot be reached, gives readings with an error. It does not delay the others.
    While *capacity* readings wait to be fetched, no requests are sent: ticks are skipped, and counted in
    `Reading.skipped`. At most *connecting* connections are opened at the same time. An attempt that has not connected
    after 0.25 s no longer counts, so dead controllers do not delay the others. Raises TypeError for a value that is not
    a whole number, ValueError for a number below 1.
    """

    def __init__(self, *, connecting: int = 200, capacity: int = 1000) -> None:
        self._places = asyncio.Semaphore(check_whole("connecting", connecting))
        self._members: dict[str, _Member] = {}
        self._added = 0
        self._timers = TimerWheel()
        # One bound method that all members share: each access to the attribute would create another one.
        self._call_at = self._timers.call_at
        self._readings = _Readings(check_whole("capacity", capacity))
        # The event loop in which the first method was called.
        self._loop: asyncio.AbstractEventLoop | None = None

    def _check_loop(self) -> asyncio.AbstractEventLoop:
        """Return the running event loop. Raises RuntimeError if the fleet belongs to another one."""
        loop = running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                raise RuntimeError(
                    "this fleet belongs to another event loop or thread: use it where the first controller was added"
                )
            self._loop = loop
        return loop

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all controllers. The iteration ends after the readings that wait. May be called again."""
        self._check_loop()
        if not self._readings.closed:
            self._timers.close()
            self._readings.close()
            for member in self._members.values():
                member.client.close()
        await asyncio.gather(*(member.client.aclose() for member in self._members.values()))
        self._members.clear()

    def add(
        self,
        url: str | TransportFactory,
        *,
        interval: float = 5.0,
        name: str | None = None,
        **options: Unpack[ClientOptions],
    ) -> TracerClient:
        """Add a controller that is read every *interval* seconds from now on. Return its client.

        Returns without waiting for a connection. The default *name* is the URL. *options* are those of `TracerClient`.

        Raises TypeError or ValueError for an interval that is not a number or is below 0.001 s, ValueError for a name
        that is in use, AddressError and MissingExtraError as `TracerClient` does, LinkClosedError if the fleet is
        closed, RuntimeError without an event loop or in another one than that of the first controller.
        """
        loop = self._check_loop()
        interval = check_number("interval", interval)
        client = _MemberClient(url, start_offline=True, **options)
        name = client.url if name is None else name
        if self._readings.closed:
            raise LinkClosedError(client.url, "the fleet is closed")
        if name in self._members:
            raise ValueError(f"there is already a controller named {name!r}: pass another name=")
        connection = client.start(self._places, self._call_at)
        start = loop.time() + self._added * _STAGGER % 1.0 * interval
        self._added += 1
        self._members[name] = _Member(
            name,
            client,
            connection=connection,
            interval=interval,
            start=start,
            timers=self._timers,
            readings=self._readings,
        )
        return client

    async def remove(self, name: str) -> None:
        """Stop polling a controller and close its client. Its readings that still wait are dropped.

        Raises KeyError if there is no controller with this name.
        """
        self._check_loop()
        member = self._members.pop(name)
        member.remove()
        await member.client.aclose()

    def __getitem__(self, name: str) -> TracerClient:
        """Return the client of a controller, for example to switch its load. Raises KeyError for an unknown name."""
        return self._members[name].client

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __len__(self) -> int:
        return len(self._members)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FleetReading:
        loop = self._check_loop()
        readings = self._readings
        while True:
            while readings.items:
                member, reading = readings.items.popleft()
                if not member.removed:  # another controller may have its name now
                    return _new(FleetReading, (member.name, reading))
            if readings.closed:
                raise StopAsyncIteration
            waiter = loop.create_future()
            readings.waiters.append(waiter)
            try:
                await waiter
            finally:
                readings.waiters.remove(waiter)


class _Readings:
    """The readings that wait to be fetched. It takes a third of the time of an asyncio.Queue."""

    __slots__ = ("capacity", "closed", "items", "waiters")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.closed = False
        self.items: deque[tuple[_Member, Reading]] = deque()
        self.waiters: list[asyncio.Future[None]] = []
        """Futures that wait until a reading is added, or until this is closed."""

    def put(self, member: _Member, reading: Reading) -> None:
        """Add a reading, unless this is closed."""
        if not self.closed:
            self.items.append((member, reading))
            self._wake()

    def close(self) -> None:
        """Add no more readings."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        # Wake all: if only one was woken and it was cancelled at the same moment, the reading would wait forever.
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


class _MemberClient(TracerClient):
    """The client of one controller of a fleet. It shares the fleet's timers and its limit of attempts to connect."""

    __slots__ = ()

    def start(self, places: asyncio.Semaphore, call_at: CallAt) -> Connection:
        """Begin to connect. Return the connection."""
        return self._start(None, places, call_at)

    def close(self) -> None:
        """Do the part of closing that needs no await."""
        self._close()


class _Member:
    """One controller of a fleet. It is the `Waiter` of its requests, instead of a future."""

    __slots__ = (
        "_connection",
        "_due",
        "_interval",
        "_readings",
        "_request",
        "_skipped",
        "_skipped_before",
        "_timer",
        "_timers",
        "client",
        "name",
        "removed",
    )

    def __init__(
        self,
        name: str,
        client: _MemberClient,
        *,
        connection: Connection,
        interval: float,
        start: float,
        timers: TimerWheel,
        readings: _Readings,
    ) -> None:
        self.name = name
        self.client = client
        self.removed = False
        self._connection = connection
        self._interval = interval
        self._timers = timers
        self._readings = readings
        self._request: Request | None = None
        self._skipped = self._skipped_before = 0
        self._due = start
        self._timer = timers.call_at(start, self.tick)

    def remove(self) -> None:
        """Send no more requests, and drop the readings that wait."""
        self.removed = True
        self._timer.cancel()

    def tick(self) -> None:
        """Request a reading, and schedule the next tick."""
        try:
            self._poll()
        except LinkClosedError:  # the application has closed this client
            return
        now = asyncio.get_running_loop().time()
        self._due += self._interval
        if self._due <= now:
            # After a stall, skip to the first tick in the future: ticks stay whole intervals apart and do not drift.
            missed = math.floor((now - self._due) / self._interval) + 1
            self._skipped += missed
            self._due += missed * self._interval
        self._timer = self._timers.call_at(self._due, self.tick)

    def _poll(self) -> None:
        """Request a reading, unless the last request is not answered yet or too many readings wait."""
        if self._request is not None or len(self._readings.items) >= self._readings.capacity:
            self._skipped += 1
            return
        self._skipped_before, self._skipped = self._skipped, 0
        # Joined: a reading that the application has requested through the client serves this tick too.
        self._request = self._connection.post(_READ, self)

    def done(self) -> bool:
        """See `Waiter`."""
        return self.removed

    def set_result(self, answer: Answer[RealtimeData]) -> None:
        """See `Waiter`."""
        self._put(self._connection.reading(answer, self._skipped_before))

    def set_exception(self, error: TracerError) -> None:
        """See `Waiter`."""
        # Without data there is no age: it stays infinite.
        self._put(Reading(time.time(), None, error, skipped=self._skipped_before))

    def _put(self, reading: Reading) -> None:
        self._request = None
        self._readings.put(self, reading)
