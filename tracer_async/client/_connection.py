"""Drives one `Session` over a link that is kept open. `TracerClient` and `Fleet` stand on it.

No task drives a session. A caller awaits one future and nothing else, so a cancelled caller leaves nothing behind but
an unanswered request. One timer serves everything that can become due, and is only ever set earlier: a request that is
answered in time costs no timer at all.

Before a request is sent or anything times out, all input that had arrived is read: see `Connection._read_first`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from enum import StrEnum
from typing import Any, Protocol
from weakref import WeakSet

from tracer_async.client._suspend import suspended_seconds
from tracer_async.client._timer_wheel import CallAt, Timer
from tracer_async.client.reading import Reading
from tracer_async.client.subscription import Subscription
from tracer_async.errors import LinkError, TracerError
from tracer_async.protocol import (
    Answer,
    Answered,
    Command,
    CommandCode,
    Failed,
    Frame,
    LinkFailed,
    LoadState,
    RealtimeData,
    Request,
    Session,
    SessionEvent,
    SessionOptions,
    SessionStats,
)
from tracer_async.transport.link import FRESH, Link

__all__ = ["Connection", "ConnectionState", "Waiter", "running_loop"]

_READ_REALTIME = int(CommandCode.READ_REALTIME)

# What a NamedTuple's own constructor calls, in half its time.
_new = tuple.__new__

# Logs every byte in both directions at the level DEBUG; the arguments are the name, "sent" or "received", and the bytes
# in hexadecimal. Whether it is enabled is looked up once for each link, because that takes as long as much else.
_wire = logging.getLogger("tracer_async.wire")

# The least that a transport reads in one turn of the event loop while input waits (pyserial-asyncio's).
_READ_SIZE = 1024

# Turns of the event loop until what a transport can read has come here: one because it may have looked for input
# before that was there, one for its reader or timer, and two for tasks that pass on what those have brought.
_TURNS = 4

# How many reads are waited for where nothing tells how much had arrived: a peer that never stops sending must not stop
# requests.
_MAX_READS = 64

# Both clocks of `suspended_seconds` are read one after the other, and the process may have to wait in between.
_SUSPENDED = 0.5


class ConnectionState(StrEnum):
    """The state of a client's connection."""

    CONNECTING = "connecting"
    """It is being established for the first time."""
    UP = "up"
    """Established. Whether the controller answers is another matter."""
    DOWN = "down"
    """Lost, and being established again."""
    CLOSED = "closed"
    """Not opened yet, or closed for good."""


class Waiter(Protocol):
    """Who waits for an answer: a future, or something cheaper. It must not call the connection back."""

    def done(self) -> bool:
        """Whether it no longer waits."""

    def set_result(self, result: Answer[Any], /) -> None:
        """Take the answer."""

    def set_exception(self, exception: TracerError, /) -> None:
        """Take the error that came instead."""


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running asyncio event loop. Raises RuntimeError if there is none, under trio for example."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "no asyncio event loop is running: tracer_async needs asyncio; run it under anyio's asyncio backend"
        ) from None


class Connection:
    """The asyncio driver of one session. It belongs to the event loop in which it was made."""

    # There may be thousands: see `Session`.
    __slots__ = (
        "_call_at",
        "_closed",
        "_closing",
        "_last_reading",
        "_link",
        "_link_timeout",
        "_loop",
        "_more_reads",
        "_name",
        "_read_until",
        "_session",
        "_subscriptions",
        "_suspended_limit",
        "_timeout",
        "_timer",
        "_timer_at",
        "_traced",
        "_turns",
        "_watchers",
        "down_cause",
        "reset_address",
        "state",
    )

    def __init__(self, options: SessionOptions, call_at: CallAt | None = None) -> None:
        self._loop = running_loop()
        self._call_at = call_at or self._loop.call_at
        self._name = options.name
        self._session = Session(options, self._loop.time())
        self._session.frame_events = False
        self._link: Link | None = None
        self._closing: asyncio.Future[None] | None = None
        self._link_timeout = options.link_timeout
        self._timeout = options.timeout
        self._suspended_limit = 0.0
        self._traced = False
        self._timer: Timer | None = None
        self._timer_at = 0.0
        # How many turns of the loop it takes until what had arrived at `_read_until` is read.
        self._turns = 0
        self._read_until = 0.0
        # How many reads may still prolong that; -1 where it is known how much had arrived.
        self._more_reads = -1
        self._subscriptions: WeakSet[Subscription[Frame]] | None = None
        self._watchers: WeakSet[Subscription[ConnectionState]] | None = None
        self.state = ConnectionState.CONNECTING
        self.down_cause: Exception | None = None
        """Why there is no link, or why the last one was lost; None where the other side closed it."""
        self.reset_address: tuple[Any, ...] | None = None
        """The local address whose port the next link must come from: see `Link.abort`."""
        # With its `Answer.since`. The whole answer would keep the frame too.
        self._last_reading: tuple[float, RealtimeData] | None = None
        self._closed: asyncio.Event | None = None

    @property
    def stats(self) -> SessionStats:
        """The session's counters."""
        return self._session.stats

    # What callers want.

    def check_loop(self) -> None:
        """Raise RuntimeError unless this runs in the connection's own event loop."""
        try:
            if asyncio.get_running_loop() is self._loop:
                return
        except RuntimeError:
            pass
        raise RuntimeError(
            f"{self._name}: this client belongs to another event loop or thread. Use it where it was opened, or call "
            "it through asyncio.run_coroutine_threadsafe()"
        )

    async def ask(self, command: Command[Any], *, join: bool = False) -> Answer[Any]:
        """Send a request when its turn comes and return its answer; with *join*, share that of an equal request.

        Cancelled, it leaves the line fit for the next request. Raises what `Session` gives as the request's error,
        RuntimeError in another event loop.
        """
        future: asyncio.Future[Answer[Any]] = self._loop.create_future()
        request = self.post(command, future, join=join)
        try:
            return await future
        except asyncio.CancelledError:
            self._forsake(request, future)
            raise

    async def switch_load(self, load: LoadState) -> None:
        """Switch the load, and return once its state is known to be *load*. Raises as `ask`, and a `LoadError`."""
        self.check_loop()
        future: asyncio.Future[Answer[Any]] = self._loop.create_future()
        now = self._loop.time()
        request = self._session.switch_load(load, now)
        request.waiters.append(future)
        self._advance(now)
        try:
            await future
        except asyncio.CancelledError:
            self._forsake(request, future)
            raise

    def post(self, command: Command[Any], waiter: Waiter, *, join: bool = False) -> Request:
        """Queue a request; *waiter* gets the answer, or the error. Raises LinkClosedError, RuntimeError."""
        self.check_loop()
        now = self._loop.time()
        request = self._session.post(command, now, join=join)
        request.waiters.append(waiter)
        self._advance(now)
        return request

    def cancel(self, request: Request, waiter: Waiter) -> None:
        """Take back what *waiter* has posted. The request is abandoned if nobody else waits for it."""
        request.waiters.remove(waiter)
        if not request.waiters:
            now = self._loop.time()
            self._deliver(self._session.cancel(request, now))
            self._advance(now)
            if self._session.has_unanswered_command(now):
                # Until then a command that has left this machine is acknowledged.
                self._loop.call_later(self._timeout, self._discard_undelivered, self._link)

    def _forsake(self, request: Request, future: asyncio.Future[Answer[Any]]) -> None:
        if future.done() and not future.cancelled():
            future.exception()  # it came at the same moment as the cancellation, and is of no use any more
        self.cancel(request, future)

    def reading(self, answer: Answer[Any], skipped: int = 0) -> Reading:
        """Return *answer* with the time of its arrival on the wall clock, however much later this is called."""
        value, _, since, received_at, _ = answer
        before = self._loop.time()
        wall = time.time()
        # The process may have to wait between two clocks. The age covers that.
        waited = self._loop.time() - before
        return _new(Reading, (wall - (before - received_at), value, None, waited + received_at - since, skipped))

    def recent_reading(self, max_age: float) -> RealtimeData | None:
        """Return the last reading if it is no older than *max_age* seconds, and no command was sent after it."""
        self.check_loop()
        last = self._last_reading
        if last is None:
            return None
        since, value = last
        if self._loop.time() - since > max_age or since < self._session.last_command_sent or self._was_suspended():
            return None
        return value

    def subscribe(self, subscription: Subscription[Frame]) -> None:
        """Give every good frame to *subscription*, for as long as somebody holds it. Raises RuntimeError."""
        self.check_loop()
        if self._subscriptions is None:
            self._subscriptions = WeakSet()
            self._session.frame_events = True
        self._subscriptions.add(subscription)
        if self.state is ConnectionState.CLOSED:
            subscription.end()

    def watch(self, watcher: Subscription[ConnectionState]) -> None:
        """Give every change of `state` to *watcher*, for as long as somebody holds it. Raises RuntimeError."""
        self.check_loop()
        if self._watchers is None:
            self._watchers = WeakSet()
        self._watchers.add(watcher)
        if self.state is ConnectionState.CLOSED:
            watcher.end()

    def set_state(self, state: ConnectionState) -> None:
        """Note the state that the keeper of the link has brought about. CLOSED is the last one."""
        if state is not self.state and self.state is not ConnectionState.CLOSED:
            self.state = state
            for watcher in list(self._watchers or ()):
                watcher.put(state)

    def note_down(self, cause: Exception) -> None:
        """Note why a link could not be opened."""
        self.down_cause = cause
        self._session.note_down(cause)

    def close(self) -> None:
        """Fail all requests, now and from now on, and abort the link. Raises RuntimeError in another event loop."""
        self.check_loop()
        self.set_state(ConnectionState.CLOSED)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed is not None:
            self._closed.set()
        link, self._link = self._link, None
        now = self._loop.time()
        events = self._session.close(now)
        if link is not None:
            self._closing = link.lost
            link.abort(discard=self._session.has_unanswered_command(now))
        self._deliver(events)
        for subscription in [*(self._subscriptions or ()), *(self._watchers or ())]:
            subscription.end()

    async def wait_closing(self) -> None:
        """Wait until `close` is called. Raises RuntimeError in another event loop."""
        self.check_loop()
        if self._closed is None:
            self._closed = asyncio.Event()
        if self.state is not ConnectionState.CLOSED:
            await self._closed.wait()

    async def wait_closed(self) -> None:
        """Wait until the link of a closed connection has let go of what it held, at most for the link timeout."""
        if self._closing is not None:
            await asyncio.wait([self._closing], timeout=self._link_timeout)

    # What the link does.

    def link_up(self, link: Link) -> None:
        """See `LinkOwner`."""
        if self.state is ConnectionState.CLOSED:
            link.abort()
            return
        now = self._loop.time()
        self._link = link
        if self._was_suspended():
            self._last_reading = None
        self._suspended_limit = suspended_seconds() + _SUSPENDED
        self._traced = _wire.isEnabledFor(logging.DEBUG)
        self._session.link_up(now)
        self._advance(now)

    def bytes_received(self, data: bytes | memoryview, not_before: float) -> None:
        """See `LinkOwner`."""
        now = self._loop.time()
        if self._traced:
            _wire.debug("%s: %s %s", self._name, "received", data.hex(" "))
        # No controller answers within a millisecond, so there a suspension cannot have been missed.
        if now - not_before > FRESH and suspended_seconds() > self._suspended_limit:
            self._drop_suspended()
            return
        if self._turns and self._more_reads > 0:
            self._more_reads -= 1
            self._turns = _TURNS
        session = self._session
        events = session.receive(data, now, not_before)
        if events:
            self._deliver(events)
        if not session.is_idle():
            self._advance(now)

    def link_down(self, link: Link, cause: Exception | None) -> None:
        """See `LinkOwner`."""
        if link is self._link:
            self._lose_link(cause)

    def _lose_link(self, cause: Exception | None) -> None:
        now = self._loop.time()
        self._link = None
        self._turns = 0
        self.down_cause = cause
        self._deliver(self._session.link_down(now, cause))
        self._advance(now)

    def _drop_link(self, cause: LinkError) -> None:
        """Give up a link that is of no use. A command that nobody knows the outcome of must not arrive later."""
        link = self._link
        if link is not None:
            link.abort(discard=self._session.has_unanswered_command(self._loop.time()))
            # Kept until a controller answers: attempts in between may fail.
            self.reset_address = link.reset_address or self.reset_address
            self._lose_link(cause)

    def _discard_undelivered(self, link: Link | None) -> None:
        """Give up the link if it still holds a command that nobody waits for any more: it must not be sent later."""
        if link is None or link is not self._link or not self._session.has_unanswered_command(self._loop.time()):
            return
        if link.discard_output():
            self._drop_link(LinkError(self._name, "a command could not be delivered, and was discarded"))

    def _was_suspended(self) -> bool:
        """Return whether the machine was suspended since the link was opened."""
        return suspended_seconds() > self._suspended_limit

    def _drop_suspended(self) -> None:
        # Nothing tells how old the bytes are that arrive now.
        self._last_reading = None
        self._drop_link(LinkError(self._name, "the machine was suspended"))

    # Driving the session.

    def _advance(self, now: float) -> None:
        """Send what may be sent, after all input that had arrived is read, and set the timer."""
        session = self._session
        link = self._link
        if link is not None:
            # Only where something may be sent: on a busy event loop, reading first would otherwise never end.
            if now - link.empty_at >= FRESH and session.may_send(now) and not self._is_read(link, now):
                return
            data = session.data_to_send(now)
            if data:
                self._write(link, data)
        when = session.deadline(now)
        if when is not None and (self._timer is None or when < self._timer_at):
            self._set_timer(when)

    def _write(self, link: Link, data: bytes) -> None:
        if self._traced:
            _wire.debug("%s: %s %s", self._name, "sent", data.hex(" "))
        link.write(data)

    def _is_read(self, link: Link, now: float) -> bool:
        """Return whether all input that had arrived is read. If not, `_turn` goes on when it is."""
        if self._turns:
            return False
        if suspended_seconds() > self._suspended_limit:
            self._drop_suspended()
            return False
        unread = link.unread(now)
        if unread == 0:
            return True
        self._read_first(unread, now)
        return False

    def _read_first(self, unread: int | None, now: float) -> None:
        """Let the loop turn until its readers have read what had arrived at *now*; then go on with what is due.

        After a stall of the application there may be replies, and copies of replies, that are older than they look.
        Only what had arrived is waited for, not what keeps coming. Where nothing tells how much that is (None), the
        loop turns until no more comes.
        """
        if not self._turns:
            self._read_until = now
            self._turns = _TURNS + (unread or 0) // _READ_SIZE
            self._more_reads = _MAX_READS if unread is None else -1
            self._loop.call_soon(self._turn, self._link)

    def _turn(self, link: Link | None) -> None:
        if link is None or link is not self._link:
            return  # the link was lost
        self._turns -= 1
        if self._turns:
            self._loop.call_soon(self._turn, link)
            return
        if self._more_reads:
            link.note_read(self._read_until)
        self._deliver(self._session.tick(self._read_until))
        now = self._loop.time()
        if self._link is link:
            data = self._session.data_to_send(now)
            if data:
                self._write(link, data)
        self._advance(now)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Kept here, because not every event loop's timers tell when they are due.
        self._timer_at = when
        self._timer = self._call_at(when, self._wake)

    def _wake(self) -> None:
        """Do what has become due, if anything has: most requests are answered long before their timer."""
        self._timer = None
        now = self._loop.time()
        when = self._session.deadline(now)
        if when is None or self._turns:
            return
        if when > now:
            self._set_timer(when)
            return
        if self._link is not None and not self._is_read(self._link, now):
            return
        self._deliver(self._session.tick(now))
        self._advance(now)

    def _deliver(self, events: list[SessionEvent]) -> None:
        """Hand out what happened."""
        for event in events:
            if isinstance(event, Answered):
                request, answer = event
                value = answer.value
                if type(value) is RealtimeData:
                    self._last_reading = answer.since, value
                self.reset_address = None
                for waiter in request.waiters:
                    if not waiter.done():
                        waiter.set_result(answer)
            elif isinstance(event, Frame):
                for subscription in self._subscriptions or ():
                    subscription.put(event)
            elif isinstance(event, Failed):
                if event.request.command.code != _READ_REALTIME or event.request.switch is not None:
                    self._discard_undelivered(self._link)
                # An exception collects the traceback of each task that raises it, so each waiter gets its own.
                error = event.error
                for waiter in event.request.waiters:
                    if not waiter.done():
                        waiter.set_exception(error)
                        error = _twin(error)
            elif isinstance(event, LinkFailed):
                self._drop_link(event.error)


def _twin(error: TracerError) -> TracerError:
    """Return an equal exception."""
    twin = type(error).__new__(type(error), *error.args)
    twin.args = error.args
    twin.__dict__.update(error.__dict__)
    twin.__cause__ = error.__cause__
    return twin
