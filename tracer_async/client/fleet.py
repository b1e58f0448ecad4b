"""Many controllers in one event loop: one schedule for all of them, one iterator of what they say.

No controller has a task that waits for its turn, nor a timer of the event loop: one schedule serves all of them. An
answer is turned into a reading in the callback that received it.
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

    from tracer_async.transport.opening import TransportFactory

__all__ = ["Fleet", "FleetReading"]

_READ = ReadRealtime()

# What a NamedTuple's own constructor calls, in half its time.
_new = tuple.__new__

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
    `Reading.skipped`. At most *connecting* links are opened at the same time; an attempt that has not connected after
    0.25 s no longer counts, so that dead controllers delay no others. Raises TypeError for what is no whole number,
    ValueError for numbers below 1.
    """

    def __init__(self, *, connecting: int = 200, capacity: int = 1000) -> None:
        self._places = asyncio.Semaphore(check_whole("connecting", connecting))
        self._members: dict[str, _Member] = {}
        self._added = 0
        self._timers = TimerWheel()
        # One bound method for all members.
        self._call_at = self._timers.call_at
        self._readings = _Readings(check_whole("capacity", capacity))
        # That of the first member.
        self._loop: asyncio.AbstractEventLoop | None = None

    def _check_loop(self) -> asyncio.AbstractEventLoop:
        """Return the running event loop. Raises RuntimeError if the fleet belongs to another one."""
        loop = running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError(
                "this fleet belongs to another event loop or thread: use it where the first controller was added"
            )
        return loop

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every controller; the iteration ends behind what has been read already. It may be called again."""
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
        """Add a controller, to be read every *interval* seconds from now on; return its client.

        It comes up without a link if there is none. *name* is its URL unless given, *options* are those of
        `TracerClient`. Needs a running event loop. Raises TypeError or ValueError for an interval that is no number, or
        is below 0.001 s; ValueError for a name that is taken; RuntimeError in another event loop than the first one's;
        AddressError and MissingExtraError as `TracerClient` does; LinkClosedError once the fleet is closed.
        """
        loop = self._check_loop()
        interval = check_number("interval", interval)
        client = _MemberClient(url, start_offline=True, **options)
        name = client.url if name is None else name
        if self._readings.closed:
            raise LinkClosedError(client.url, "the fleet is closed")
        if name in self._members:
            raise ValueError(f"there is already a controller named {name!r}: give each its own name=")
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
        """Stop polling a controller and close its client; no reading of it is given out any more.

        Raises KeyError if there is none of that name.
        """
        self._check_loop()
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
        loop = self._check_loop()
        readings = self._readings
        while True:
            while readings.items:
                member, reading = readings.items.popleft()
                if not member.removed:  # by now another one may have its name
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
    """The readings of all members that nobody has fetched yet: an asyncio.Queue that costs a third."""

    __slots__ = ("capacity", "closed", "items", "waiters")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.closed = False
        self.items: deque[tuple[_Member, Reading]] = deque()
        self.waiters: list[asyncio.Future[None]] = []
        """Those who wait until there may be something, or until this is closed."""

    def put(self, member: _Member, reading: Reading) -> None:
        """Add a reading, unless this is closed."""
        if not self.closed:
            self.items.append((member, reading))
            self._wake()

    def close(self) -> None:
        """Add nothing any more."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        # All of them: one that is woken may have been cancelled at the same moment.
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


class _MemberClient(TracerClient):
    """The client of one controller of a fleet: it shares the fleet's timers and its places for connecting."""

    __slots__ = ()

    def start(self, places: asyncio.Semaphore, call_at: CallAt) -> Connection:
        """Begin to connect; return the connection."""
        return self._start(None, places, call_at)

    def close(self) -> None:
        """Do all of closing that need not be waited for."""
        self._close()


class _Member:
    """One controller of a fleet; it waits for its own answers, in place of a future."""

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
        """Ask no more, and give out nothing more."""
        self.removed = True
        self._timer.cancel()

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
        self._timer = self._timers.call_at(self._due, self.tick)

    def _poll(self) -> None:
        """Ask, unless the request before is not answered yet or there is no room for its reading."""
        if self._request is not None or len(self._readings.items) >= self._readings.capacity:
            self._skipped += 1
            return
        self._skipped_before, self._skipped = self._skipped, 0
        self._request = self._connection.post(_READ, self, join=True)

    def done(self) -> bool:
        """See `Waiter`."""
        return self.removed

    def set_result(self, answer: Answer[RealtimeData]) -> None:
        """See `Waiter`."""
        self._put(self._connection.reading(answer, self._skipped_before))

    def set_exception(self, error: TracerError) -> None:
        """See `Waiter`."""
        self._put(Reading(time.time(), None, error, skipped=self._skipped_before))

    def _put(self, reading: Reading) -> None:
        self._request = None
        self._readings.put(self, reading)
