"""Connects one `Session` to the event loop and to a link. `TracerClient` and `Fleet` use it.

No task drives a session. A caller awaits one future, so a cancelled caller leaves only an unanswered request. All
deadlines share one timer. It is set again only for an earlier deadline: most requests are answered in time, and never
touch it.

Before a request is sent, and before anything times out, all input that has arrived is read. See
`Connection._read_first`.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any, Protocol
from weakref import WeakSet

from tracer_async.client._results import is_recent, reading_of, twin
from tracer_async.client._status import ConnectionState, Status
from tracer_async.client._suspend import SuspendWatch
from tracer_async.client._timer_wheel import CallAt, Timer
from tracer_async.client._trace import Trace
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
    ReadRealtime,
    RealtimeData,
    Request,
    Session,
    SessionEvent,
    SessionOptions,
    SessionStats,
)
from tracer_async.transport._link import FRESH, Link

__all__ = ["Connection", "Waiter", "running_loop"]

_READ_REALTIME = int(CommandCode.READ_REALTIME)

# Minimum bytes that a transport reads in one iteration of the event loop while input waits (that of pyserial-asyncio).
_READ_SIZE = 1024

# Iterations of the event loop until available input has arrived here: one because the loop may have polled before the
# input was there, one for the callback that reads it, and two for tasks that a custom transport may use to pass it on.
_TURNS = 4

# Maximum reads to wait for if the size of the input is not known, and how often to begin again if more input has
# arrived meanwhile: a controller that never stops sending must not prevent requests.
_MAX_READS = 64
_MAX_ROUNDS = 3


class Waiter(Protocol):
    """An object that waits for an answer: a future, or a cheaper object. It must not call methods of the connection."""

    def done(self) -> bool:
        """Whether it no longer waits."""

    def set_result(self, result: Answer[Any], /) -> None:
        """Receive the answer."""

    def set_exception(self, exception: TracerError, /) -> None:
        """Receive the error."""


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running asyncio event loop. Raises RuntimeError if there is none, under trio for example."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "no asyncio event loop is running: tracer_async needs asyncio; run it under anyio's asyncio backend"
        ) from None


class Connection:
    """The asyncio driver of one session. It belongs to the event loop in which it was created."""

    # Slots for the same reason as in `Session`: there may be thousands of connections.
    __slots__ = (
        "_call_at",
        "_closing",
        "_last_reading",
        "_last_since",
        "_link",
        "_link_timeout",
        "_loop",
        "_more_reads",
        "_name",
        "_read_until",
        "_rounds",
        "_session",
        "_subscriptions",
        "_suspends",
        "_timeout",
        "_timer",
        "_timer_at",
        "_trace",
        "_turns",
        "down_cause",
        "reset_address",
        "status",
    )

    def __init__(self, options: SessionOptions, trace: Trace, call_at: CallAt | None = None) -> None:
        self._loop = running_loop()
        self._call_at = call_at or self._loop.call_at
        self._name = options.name
        self._session = Session(options, self._loop.time())
        self._session.frame_events = False
        self._link: Link | None = None
        self._closing: asyncio.Future[None] | None = None
        self._link_timeout = options.link_timeout
        self._timeout = options.timeout
        self._suspends = SuspendWatch()
        self._trace = trace
        trace.begin(self._loop.time(), options.timeout)
        self._timer: Timer | None = None
        self._timer_at = 0.0
        # Remaining iterations of the event loop until all input that had arrived at `_read_until` is read.
        self._turns = 0
        self._read_until = 0.0
        # Number of reads that may still extend this. -1: the size of the input was known.
        self._more_reads = -1
        # How often the reading may still begin again because more input has arrived.
        self._rounds = 0
        self._subscriptions: WeakSet[Subscription[Frame]] | None = None
        self.status: Status = Status()
        self.down_cause: Exception | None = None
        """Why there is no link, or why the last one was lost. None if the other side closed it."""
        self.reset_address: tuple[Any, ...] | None = None
        """The local address whose port the next link must use. See `Link.abort`."""
        # The last reading and its `Answer.since`. The whole answer would keep the frame in memory too.
        self._last_reading: RealtimeData | None = None
        self._last_since = 0.0

    @property
    def stats(self) -> SessionStats:
        """The counters of the session."""
        return self._session.stats

    # Called by clients.

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

    async def ask(self, command: Command[Any]) -> Answer[Any]:
        """Queue a request and return its answer. Readings at the same time share one answer.

        May be cancelled at any time. Raises the error that the session gives the request, RuntimeError in another event
        loop.
        """
        self.check_loop()
        future: asyncio.Future[Answer[Any]] = self._loop.create_future()
        request = self.post(command, future)
        try:
            return await future
        except asyncio.CancelledError:
            self._forsake(request, future)
            raise

    async def switch_load(self, load: LoadState) -> None:
        """Switch the load. Return when its state is known to be *load*. Raises the errors of `ask`, and `LoadError`."""
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

    def post(self, command: Command[Any], waiter: Waiter, *, send_by: float = inf) -> Request:
        """Queue a request. *waiter* gets the answer or the error. Raises LinkClosedError.

        An urgent command is not sent after *send_by*. Then *waiter* gets nothing: call `withdraw` at that time.
        Call it only in the event loop of the connection: unlike `ask`, it does not check that.
        """
        now = self._loop.time()
        request = self._session.post(command, now, join=type(command) is ReadRealtime, send_by=send_by)
        request.waiters.append(waiter)
        self._advance(now)
        return request

    def post_fresh(self, waiter: Waiter) -> Request:
        """Queue a reading that is certainly taken after this call. See `Session.post_fresh`. Otherwise as `post`."""
        now = self._loop.time()
        request = self._session.post_fresh(now)
        request.waiters.append(waiter)
        self._advance(now)
        return request

    def withdraw(self, request: Request, waiter: Waiter) -> None:
        """Remove *waiter* from a request. If no other one waits for it and it is not in flight, it is not sent."""
        request.waiters.remove(waiter)
        if not request.waiters:
            self._session.withdraw(request)

    def cancel(self, request: Request, waiter: Waiter) -> None:
        """Remove *waiter* from a request. If no other one waits for it, cancel the request."""
        request.waiters.remove(waiter)
        if not request.waiters:
            now = self._loop.time()
            self._deliver(self._session.cancel(request, now))
            is_command = not request.reading or request.switch is not None
            link = self._link
            if link is not None and is_command and self._session.has_unanswered_command(now):
                # If it has left this machine, it is acknowledged by then.
                self._loop.call_later(self._timeout, self._check_cancelled, link, link.written)
            self._advance(now)

    def _forsake(self, request: Request, future: asyncio.Future[Answer[Any]]) -> None:
        if future.done() and not future.cancelled():
            # The error came at the same moment as the cancellation. asyncio would log that it was never retrieved.
            future.exception()
        self.cancel(request, future)

    def reading(self, answer: Answer[Any], skipped: int = 0) -> Reading:
        """Return *answer* as a reading, with the wall-clock time of its arrival. May be called any time later."""
        reading = reading_of(answer, self._loop.time, skipped)
        # Perhaps after the answer arrived, which the clock of the event loop does not count.
        suspended = self._suspends.seconds()
        return reading._replace(age=reading.age + suspended) if suspended else reading

    def recent_reading(self, max_age: float) -> RealtimeData | None:
        """Return the last reading if it is at most *max_age* seconds old and no command was sent after it."""
        self.check_loop()
        return self._last_reading if self.is_recent(self._last_since, max_age) else None

    def is_recent(self, since: float, max_age: float) -> bool:
        """Return whether an answer with `Answer.since` *since* is at most *max_age* seconds old, without a command sent
        after it.
        """
        recent = is_recent(since, self._loop.time(), max_age, self._session.last_command_sent)
        return recent and not self._suspends.noticed()

    def subscribe(self, subscription: Subscription[Frame]) -> None:
        """Add each good frame to *subscription* while it is referenced. Raises RuntimeError in another event loop."""
        self.check_loop()
        if self._subscriptions is None:
            self._subscriptions = WeakSet()
            self._session.frame_events = True
        self._subscriptions.add(subscription)
        if self.status.closed:
            subscription.end()

    def note_down(self, cause: Exception) -> None:
        """Record why a link could not be opened."""
        self.down_cause = cause
        self._session.note_down(cause)

    def close(self) -> None:
        """Fail all present and future requests, and abort the link. Raises RuntimeError in another event loop."""
        self.check_loop()
        self.status.set(ConnectionState.CLOSED)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        link, self._link = self._link, None
        now = self._loop.time()
        events = self._session.close(now)
        if link is not None:
            self._closing = link.lost
            link.abort(discard=self._session.has_unanswered_command(now))
            self._trace.link_down(now, by_client=True)
        self._trace.end()
        self._deliver(events)
        for subscription in list(self._subscriptions or ()):
            subscription.end()

    async def wait_closed(self) -> None:
        """Wait until the link of a closed connection has released its resources, at most for the link timeout."""
        if self._closing is not None:
            await asyncio.wait([self._closing], timeout=self._link_timeout)

    # Called by the link.

    def link_up(self, link: Link) -> None:
        """See `LinkOwner`."""
        if self.status.closed:
            link.abort()
            return
        now = self._loop.time()
        self._link = link
        if self._suspends.noticed():
            self._last_reading = None
        self._suspends.restart()
        self._trace.link_up(now)
        self.status.set(ConnectionState.UP)
        self._session.link_up(now)
        self._advance(now)

    def bytes_received(self, data: bytes | memoryview, not_before: float) -> None:
        """See `LinkOwner`."""
        now = self._loop.time()
        if self._trace.active:
            self._trace.received(data, now)
        # No controller answers within `FRESH` after the input was empty, so no suspend is missed if the slow check is
        # skipped then.
        if now - not_before > FRESH and self._suspends.noticed():
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

    def link_ended(self, link: Link) -> None:
        """See `LinkOwner`."""
        if link is self._link:
            self._drop_link(None, by_client=False)

    def link_down(self, link: Link, cause: Exception | None) -> None:
        """See `LinkOwner`."""
        if link is self._link:
            self._lose_link(cause, by_client=False)

    def _lose_link(self, cause: Exception | None, *, by_client: bool) -> None:
        now = self._loop.time()
        self._trace.link_down(now, by_client=by_client, cause=cause)
        self._link = None
        self._turns = 0
        self.down_cause = cause
        self._deliver(self._session.link_down(now, cause))
        self._advance(now)

    def _drop_link(self, cause: LinkError | None, *, discard: bool = False, by_client: bool = True) -> None:
        """Abort the link. With *discard*, or with a command of unknown outcome, discard what was not delivered."""
        link = self._link
        if link is not None:
            link.abort(discard=discard or self._session.has_unanswered_command(self._loop.time()))
            # Kept until a controller answers, because the next attempts may fail.
            self.reset_address = link.reset_address or self.reset_address
            self._lose_link(cause, by_client=by_client)

    # A command whose caller was told that it failed or was cancelled must not be delivered later.

    def _discard_failed(self, link: Link) -> None:
        """Drop the link if a command that has just failed was not delivered."""
        if self._session.has_unanswered_command(self._loop.time()) and link.undelivered() != 0:
            self._drop_undelivered()

    def _check_cancelled(self, link: Link, written: int) -> None:
        """Drop the link if a command that was cancelled a timeout ago is not delivered.

        *written* is the number of bytes that had been written to the link then. Those after it are of later requests.
        """
        if link is not self._link:
            return
        held = link.undelivered()
        if held is None:
            undelivered = self._session.has_unanswered_command(self._loop.time())
        else:
            undelivered = held > link.written - written
        if undelivered:
            self._drop_undelivered()

    def _drop_undelivered(self) -> None:
        cause = LinkError(self._name, "a command could not be delivered and was discarded")
        self._drop_link(cause, discard=True)

    def _drop_suspended(self) -> None:
        # After a suspend, the age of received bytes is unknown.
        self._last_reading = None
        self._drop_link(LinkError(self._name, "the machine was suspended"))

    # Driving the session.

    def _advance(self, now: float) -> None:
        """Send the next request if it may be sent and all input that has arrived is read. Set the timer."""
        session = self._session
        link = self._link
        if link is not None:
            request = session.next_request(now)
            if request is not None:
                # Only if there is a request to send: otherwise each read on a busy event loop would cause another one.
                if now - link.empty_at >= FRESH and not self._is_read(link, now):
                    return
                self._send(link, request, now)
        when = session.deadline(now)
        if when is not None and (self._timer is None or when < self._timer_at):
            self._set_timer(when)

    def _send(self, link: Link, request: Request, now: float) -> None:
        data = self._session.send(request, now)
        if self._trace.active:
            self._trace.sent(data, now)
        link.write(data)

    def _is_read(self, link: Link, now: float) -> bool:
        """Return whether all input that has arrived is read. If not, `_turn` continues when it is."""
        if self._turns:
            return False
        if self._suspends.noticed():
            self._drop_suspended()
            return False
        unread = link.unread(now)
        if unread == 0:
            return True
        self._read_first(unread, now)
        return False

    def _read_first(self, unread: int | None, now: float) -> None:
        """Let the event loop read the input that had arrived at *now*. `_turn` then continues.

        If the application has blocked the event loop, the input may contain replies and copies of replies. If a request
        were sent before they are read, they could be taken for its answer. If more has arrived meanwhile, this begins
        again, at most `_MAX_ROUNDS` times: a line that never pauses must not prevent requests. If the size of the input
        is unknown (*unread* is None), the event loop runs until no more comes, for at most `_MAX_READS` reads.
        """
        if not self._turns:
            self._rounds = _MAX_ROUNDS
            self._read_round(unread, now)

    def _read_round(self, unread: int | None, now: float) -> None:
        self._read_until = now
        self._turns = _TURNS + (unread or 0) // _READ_SIZE
        self._more_reads = _MAX_READS if unread is None else -1
        self._loop.call_soon(self._turn, self._link)

    def _turn(self, link: Link | None) -> None:
        if link is None or link is not self._link:
            return  # this link was lost
        self._turns -= 1
        if self._turns:
            self._loop.call_soon(self._turn, link)
            return
        if self._more_reads:
            link.note_read(self._read_until)
        if self._rounds:
            self._rounds -= 1
            now = self._loop.time()
            unread = link.unread(now)
            if unread:
                self._read_round(unread, now)
                return
        self._deliver(self._session.tick(self._read_until))
        now = self._loop.time()
        if self._link is link:
            request = self._session.next_request(now)
            if request is not None:
                self._send(link, request, now)
        self._advance(now)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Stored here, because the timers of some event loops do not have it.
        self._timer_at = when
        self._timer = self._call_at(when, self._wake)

    def _wake(self) -> None:
        """Handle the timer. Usually nothing is due: the request for which it was set was answered long ago."""
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
        """Pass the events on to the waiters and subscriptions."""
        for event in events:
            if isinstance(event, Answered):
                answer = event.answer
                value = answer.value
                if type(value) is RealtimeData:
                    self._last_reading = value
                    self._last_since = answer.since
                self.reset_address = None
                for waiter in event.request.waiters:
                    if not waiter.done():
                        waiter.set_result(answer)
            elif isinstance(event, Frame):
                for subscription in self._subscriptions or ():
                    subscription.put(event)
            elif isinstance(event, Failed):
                if event.request.command.code != _READ_REALTIME or event.request.switch is not None:
                    link = self._link
                    if link is not None and event.request.attempts:
                        self._discard_failed(link)
                # Each waiter gets its own exception object: a task that raises it adds its traceback to it.
                error = event.error
                for waiter in event.request.waiters:
                    if not waiter.done():
                        waiter.set_exception(error)
                        error = twin(error)
            elif isinstance(event, LinkFailed):
                self._drop_link(event.error)
