"""One controller's line: requests are queued, sent one at a time, retried and fenced, all in the loop's callbacks.

No task drives it. A caller awaits one future and nothing else, so a cancelled caller leaves nothing behind but a reply
that is owed, which the exchange knows how to throw away. One timer serves everything that can become due, and is only
ever set earlier: a request that is answered in time costs no timer at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

from tracer_async.client._timer_wheel import CallAt, Timer
from tracer_async.client.subscription import Subscription
from tracer_async.errors import (
    LinkClosedError,
    LinkError,
    LinkLostError,
    LinkTimeoutError,
    ResponseTimeoutError,
    TracerError,
)
from tracer_async.protocol import ECHO, HORIZON, Command, Event, Exchange, Frame, FrameDecoder, Match
from tracer_async.transport.link import LinkProtocol

__all__ = ["Line", "LineOptions", "LineStats", "Request", "Waiter"]

# Bytes of one frame follow each other within milliseconds; what has stood still for this long at a request's deadline
# is not its reply arriving, but something that stands before it.
_QUIET = 0.05

# Looking a member up in its class takes as long as much of what else is done for an answer (Python 3.11).
_ANSWER = Match.ANSWER
_LATE = Match.LATE


class LineStats(NamedTuple):
    """What has happened on a client's line since it was made."""

    requests: int
    """Requests sent, retries included."""
    answers: int
    """Requests answered."""
    timeouts: int
    """Requests given up because no answer came in time."""
    late: int
    """Replies thrown away because their request had been given up."""
    unasked: int
    """Good frames that no request asked for."""
    frames: int
    """Good frames received."""
    corrupt_frames: int
    """Damaged frames received."""
    noise_bytes: int
    """Bytes received that belonged to no frame."""
    links: int
    """How often a link was established."""


class LineOptions(NamedTuple):
    """See the parameters of `TracerClient`."""

    controller_id: int
    start_up: bool
    timeout: float
    retries: int
    fence: float
    link_timeout: float
    dead_after: int | None


class Waiter(Protocol):
    """Who waits for an answer: a future, or something cheaper."""

    def done(self) -> bool:
        """Whether it no longer waits."""

    def set_result(self, result: Frame, /) -> None:
        """Take the reply."""

    def set_exception(self, exception: TracerError, /) -> None:
        """Take the error that came instead."""


class Request:
    """A request on its way, and the callers who wait for its answer."""

    __slots__ = ("answered_at", "attempts", "command", "first_sent", "queued_at", "since", "tries", "waiters", "wire")

    def __init__(self, command: Command[Any], wire: bytes, tries: int, now: float) -> None:
        self.command = command
        self.wire = wire
        self.tries = tries
        """How often it may still be sent."""
        self.attempts = 0
        """How often it was sent."""
        self.queued_at = now
        self.first_sent = now
        self.since = now
        """When the oldest request was sent that the answer may belong to, on the loop's clock."""
        self.answered_at = now
        self.waiters: list[Waiter] = []

    @property
    def wanted(self) -> bool:
        """Whether a caller still waits for it."""
        for waiter in self.waiters:  # noqa: SIM110  # asked for every request sent: `any` takes twice as long
            if not waiter.done():
                return True
        return False


class Line:
    """The requests to one controller and the link that they go over, as long as there is one."""

    # There may be thousands of lines: without slots and with deques each would take twice the memory.
    __slots__ = (
        "_answers",
        "_call_at",
        "_decoder",
        "_down_since",
        "_exchange",
        "_flight",
        "_heard",
        "_held_since",
        "_late",
        "_links",
        "_loop",
        "_name",
        "_options",
        "_queue",
        "_requests",
        "_subscriptions",
        "_timeout",
        "_timeouts",
        "_timeouts_in_a_row",
        "_timer",
        "_timer_at",
        "_unasked",
        "_urgent",
        "_wires",
        "closed",
        "down_because",
        "link",
    )

    def __init__(self, name: str, options: LineOptions, call_at: CallAt | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._call_at = call_at or self._loop.call_at
        self._name = name
        self._options = options
        self._timeout = options.timeout

        self._decoder = FrameDecoder()
        self._exchange = Exchange(options.fence)
        self.link: LinkProtocol | None = None
        self._down_since = self._loop.time()
        self.closed = False
        self._flight: Request | None = None
        self._urgent: list[Request] = []
        self._queue: list[Request] = []
        self._wires: dict[tuple[int, bytes], bytes] = {}
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._heard = self._held_since = 0.0
        self._timeouts_in_a_row = 0
        self._requests = self._answers = self._timeouts = self._late = self._unasked = self._links = 0
        self._subscriptions: WeakSet[Subscription[Frame]] | None = None
        self.down_because: Exception | None = None
        """Why the link went down, or could not be opened, the last time."""

    @property
    def stats(self) -> LineStats:
        """The counters, as they stand now."""
        decoder = self._decoder.stats
        return LineStats(
            requests=self._requests,
            answers=self._answers,
            timeouts=self._timeouts,
            late=self._late,
            unasked=self._unasked,
            frames=decoder.frames,
            corrupt_frames=decoder.corrupt_frames,
            noise_bytes=decoder.noise_bytes,
            links=self._links,
        )

    # What callers do.

    async def ask(
        self, command: Command[Any], *, share: bool = False, tries: int | None = None
    ) -> tuple[Frame, Request]:
        """Send a request when its turn comes and return the reply, and how it was come by.

        With *share*, join an equal request that has not been answered yet. Cancelled, it leaves the line fit for the
        next one. Raises LinkClosedError, LinkTimeoutError, LinkLostError or ResponseTimeoutError.
        """
        future: asyncio.Future[Frame] = self._loop.create_future()
        request = self.post(command, future, share=share, tries=tries)
        try:
            return await future, request
        except asyncio.CancelledError:
            self._withdraw(request, future)
            raise

    def post(self, command: Command[Any], waiter: Waiter, *, share: bool = False, tries: int | None = None) -> Request:
        """Queue a request; *waiter* is told the reply, or the error. Raises LinkClosedError."""
        if self.closed:
            raise LinkClosedError(self._name, "the client is closed")
        request = self._equal(command) if share else None
        if request is not None:
            request.waiters.append(waiter)
            return request
        if tries is None:
            tries = self._options.retries + 1 if command.repeatable else 1
        now = self._loop.time()
        request = Request(command, self._encode(command), tries, now)
        request.waiters.append(waiter)
        (self._urgent if command.urgent else self._queue).append(request)
        self._pump(now)
        if self.link is None:
            self._wake_at(now + self._options.link_timeout)
        return request

    def owes(self, command: Command[Any]) -> bool:
        """Whether an answer to *command* could be taken for that of an earlier request, or the other way round."""
        return self._exchange.owes(command.code, self._loop.time())

    def subscribe(self, subscription: Subscription[Frame]) -> None:
        """Give every good frame to *subscription*, for as long as somebody holds it."""
        if self._subscriptions is None:
            self._subscriptions = WeakSet()
        self._subscriptions.add(subscription)
        if self.closed:
            subscription.end()

    def close(self) -> None:
        """Fail all requests, now and from now on, and let go of the link."""
        self.closed = True
        for request in self._take_all():
            self._fail(request, lambda: LinkClosedError(self._name, "the client was closed"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for subscription in list(self._subscriptions or ()):
            subscription.end()
        if self.link is not None:
            self.link.abort()

    # What the link does.

    def link_up(self, link: LinkProtocol) -> None:
        """See `LinkOwner`."""
        self.link = link
        if self.closed:
            link.abort()
            return
        self._links += 1
        self._timeouts_in_a_row = 0
        self._pump(self._loop.time())

    def link_down(self, link: LinkProtocol, cause: Exception | None) -> None:
        """See `LinkOwner`."""
        if link is not self.link:
            return
        now = self._loop.time()
        self.link = None
        self._down_since = now
        self.down_because = cause
        self._receive(self._decoder.flush())
        self._exchange.give_up(now)
        request, self._flight = self._flight, None
        if request is not None and not self.closed:
            if request.tries:
                self._requeue(request)
            else:
                self._fail(request, lambda: LinkLostError(self._name, f"the link was lost{_because(cause)}"))
        if self._queue or self._urgent:
            self._wake_at(now + self._options.link_timeout)

    def bytes_received(self, data: bytes | memoryview) -> None:
        """See `LinkOwner`."""
        events = self._decoder.feed(data)
        if events:
            self._receive(events)
        if self._decoder.pending:
            self._heard = self._loop.time()
            self._wake_at(self._heard + self._timeout)

    # What follows from it.

    def _receive(self, events: list[Event]) -> None:
        for event in events:
            if type(event) is not Frame:
                continue
            now = self._loop.time()
            match = self._exchange.receive(event.command, now)
            if match is _ANSWER:
                request, self._flight = self._flight, None
                assert request is not None  # noqa: S101  # the exchange and the line agree on what is in flight
                self._answers += 1
                self._timeouts_in_a_row = 0
                request.since = self._exchange.since
                request.answered_at = now
                for waiter in request.waiters:
                    if not waiter.done():
                        waiter.set_result(event)
            elif match is _LATE:
                self._late += 1
            else:
                self._unasked += 1
            if self._subscriptions:
                for subscription in self._subscriptions:
                    subscription.put(event)
        # Only now: a frame that came together with an answer is no reply to the request after it.
        if self._queue or self._urgent:
            self._pump(self._loop.time())

    def _pump(self, now: float) -> None:
        """Send the next request, if the line is free for one."""
        queue = self._urgent or self._queue
        link = self.link
        if not queue or self._flight is not None or link is None:
            return
        while queue and not queue[0].wanted:
            del queue[0]
            queue = self._urgent or self._queue
        if not queue:
            return
        if not self._exchange.is_free(now):
            self._wake_at(self._exchange.free_at)
            return
        if self._decoder.pending:
            # Something is being received, perhaps a reply too many, that the request must not be answered by.
            self._held_since = self._held_since or now
            longest = HORIZON if self._decoder.in_frame else self._timeout
            held_until = min(self._heard + ECHO, self._held_since + longest)
            if now < held_until:
                self._wake_at(held_until)
                return
        self._held_since = 0.0
        request = queue.pop(0)
        if not request.attempts:
            request.first_sent = now
        request.attempts += 1
        request.tries -= 1
        self._requests += 1
        self._flight = request
        self._exchange.start(request.command.code, now, self._timeout)
        self._wake_at(now + self._timeout)
        link.write(request.wire)

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        # Kept here, because not every event loop's timers tell when they are due.
        self._timer_at = when
        self._timer = self._call_at(when, self._wake)

    def _wake(self) -> None:
        """Do all that has become due, and set the timer for what is next."""
        self._timer = None
        now = self._loop.time()
        overdue = self._exchange.deadline is not None and now >= self._exchange.deadline
        if self._decoder.pending and now - self._heard >= (_QUIET if overdue else self._timeout):
            # A good reply may stand behind a header that promised more than came.
            self._receive(self._decoder.flush())
        request = self._flight
        if overdue and request is not None and self._exchange.deadline is not None and now >= self._exchange.deadline:
            self._time_out(request, now)
        if self.link is None:
            self._expire(now)
        self._pump(now)
        due = [now + self._timeout] if self._decoder.pending else []
        if self._exchange.deadline is not None:
            due.append(self._exchange.deadline)
        if self.link is None and (self._queue or self._urgent):
            due.append(min(map(self._expiry, (*self._queue, *self._urgent))))
        if due:
            self._wake_at(min(due))

    def _time_out(self, request: Request, now: float) -> None:
        self._exchange.give_up(now)
        self._flight = None
        self._timeouts += 1
        self._timeouts_in_a_row += 1
        if request.tries:
            self._requeue(request)
        else:
            self._fail(
                request,
                lambda: ResponseTimeoutError(
                    self._name, request.command.code, now - request.first_sent, request.attempts
                ),
            )
        dead_after = self._options.dead_after
        if dead_after is not None and self._timeouts_in_a_row >= dead_after and self.link is not None:
            # A peer that vanished without a word looks like this; a new connection is the only way to find out.
            link = self.link
            self.link_down(link, TimeoutError(f"{self._timeouts_in_a_row} requests in a row were not answered"))
            link.abort()

    def _expiry(self, request: Request) -> float:
        """Until when a queued request waits for a link that is down."""
        return max(request.queued_at, self._down_since) + self._options.link_timeout

    def _expire(self, now: float) -> None:
        for queue in (self._urgent, self._queue):
            for request in [request for request in queue if now >= self._expiry(request)]:
                queue.remove(request)
                self._fail(request, self._still_down)

    def _still_down(self) -> TracerError:
        cause = self.down_because
        because = f": {cause.reason}" if isinstance(cause, LinkError) else _because(cause)
        return LinkTimeoutError(
            self._name, f"the link is down, and was not back within {self._options.link_timeout:g} s{because}"
        )

    def _requeue(self, request: Request) -> None:
        if request.wanted:
            (self._urgent if request.command.urgent else self._queue).insert(0, request)

    def _withdraw(self, request: Request, future: asyncio.Future[Frame]) -> None:
        if future.done() and not future.cancelled():
            future.exception()  # it came at the same moment as the cancellation: seen, and of no use any more
        request.waiters.remove(future)
        if request.waiters:
            return
        now = self._loop.time()
        if request is self._flight:
            self._flight = None
            self._exchange.give_up(now)
            self._pump(now)
            return
        for queue in (self._urgent, self._queue):
            if request in queue:
                queue.remove(request)

    def _equal(self, command: Command[Any]) -> Request | None:
        """Return a request for the same that has not been answered yet."""
        if self._flight is not None and self._flight.command == command:
            return self._flight
        for queue in (self._urgent, self._queue):
            for request in queue:
                if request.command == command:
                    return request
        return None

    def _take_all(self) -> list[Request]:
        self._exchange.give_up(self._loop.time())
        requests = [*([self._flight] if self._flight else []), *self._urgent, *self._queue]
        self._flight = None
        self._urgent.clear()
        self._queue.clear()
        return requests

    def _fail(self, request: Request, make: Callable[[], TracerError]) -> None:
        for waiter in request.waiters:
            if not waiter.done():
                waiter.set_exception(make())

    def _encode(self, command: Command[Any]) -> bytes:
        key = (command.code, command.to_bytes())
        wire = self._wires.get(key)
        if wire is None:
            if len(self._wires) >= 16:
                self._wires.clear()
            wire = self._wires[key] = Frame(self._options.controller_id, *key).encode(start_up=self._options.start_up)
        return wire


def _because(cause: Exception | None) -> str:
    return f" ({cause})" if cause is not None and str(cause) else ""
