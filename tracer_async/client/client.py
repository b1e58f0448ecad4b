"""The client of one controller. It keeps a connection open and sends requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from math import inf
from typing import TYPE_CHECKING, Self, TypeVar

from tracer_async.client._connection import Connection, running_loop
from tracer_async.client._options import Target
from tracer_async.client._reconnect import LinkKeeper
from tracer_async.client._recording import LineRecorder
from tracer_async.client._status import ConnectionState
from tracer_async.client._timer_wheel import CallAt
from tracer_async.client._trace import Trace
from tracer_async.client.polling import poll
from tracer_async.client.reading import Reading
from tracer_async.client.subscription import Subscription
from tracer_async.errors import LinkClosedError
from tracer_async.protocol import (
    Answer,
    Command,
    ControlSettings,
    Frame,
    LoadState,
    ReadRealtime,
    RealtimeData,
    SessionStats,
    WriteSettings,
)
from tracer_async.protocol._numbers import check_flag, check_number
from tracer_async.transport._opening import TransportFactory
from tracer_async.transport._threads import call

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

__all__ = ["TracerClient"]

R = TypeVar("R")

_READ = ReadRealtime()

# Maximum seconds to wait for the end of a recording.
_RECORDER_TIMEOUT = 5.0


class TracerClient:
    """The client of one controller: ``async with TracerClient(url) as tracer: await tracer.read_realtime()``.

    Many tasks of one event loop may call its methods at the same time, and each call may be cancelled at any moment. In
    another event loop or thread than the one in which the client was opened, methods raise RuntimeError and send
    nothing. A closed client cannot be opened again.

    :param url: ``/dev/ttyUSB0``, ``COM3``, ``host:port``, ``serial://``, ``tcp://``, ``tls://``, ``unix:``, ``sim:``;
        or a custom transport factory: called with a protocol factory, it returns ``(transport, protocol)``.
    :param controller_id: The ID in requests, 0 to 255. The default is that of the protocol document. Controllers ignore
        it.
    :param timeout: Seconds to wait for an answer, each time a request is sent.
    :param retries: How often a request without an answer is sent again. Settings are never sent again.
    :param fence: Seconds for which nothing is sent after a request was abandoned, unless its reply comes earlier.
    :param connect_timeout: Maximum seconds of an attempt to connect, and maximum seconds that a request waits for a
        connection. If that connection is lost before the request can be sent, it waits again, at most *retries* times.
    :param backoff: Initial and maximum delay between attempts to reconnect, in seconds. Each delay is shortened at
        random by up to half. Only a good frame resets it to the initial delay.
    :param max_timeouts: Consecutive requests without an answer after which a network connection is closed and
        established again. Cancelled requests count too.
    :param start_offline: Whether `open` returns at once and connects in the background. By default it raises if there
        is no connection.
    :param start_up: Whether requests begin with the start-up bytes, which wake a sleeping power line.
    :param ssl_context: For ``tls://``. By default the certificates of the system are used.
    :param recorder: Records all bytes in both directions: a `tracer_async.capture.Recorder`. The client closes it.
    :raises TypeError: if an option is not a number, or a float instead of a whole number.
    :raises ValueError: if an option is out of its range (``docs/ranges.md``).
    :raises AddressError: if the URL is not a valid address.
    :raises MissingExtraError: if a package that is needed is not installed.
    """

    # Slots: a service may have thousands of clients, and each takes a fifth more memory without them.
    __slots__ = (
        "__weakref__",
        "_closed",
        "_connection",
        "_keeper",
        "_opened",
        "_recorder",
        "_start_offline",
        "_target",
        "url",
    )

    def __init__(
        self,
        url: str | TransportFactory,
        *,
        controller_id: int = 0x16,
        timeout: float = 1.0,
        retries: int = 2,
        fence: float = 1.0,
        connect_timeout: float = 5.0,
        backoff: tuple[float, float] = (0.5, 30.0),
        max_timeouts: int = 3,
        start_offline: bool = False,
        start_up: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        recorder: LineRecorder | None = None,
    ) -> None:
        self._target = Target.of(
            url,
            controller_id=controller_id,
            timeout=timeout,
            retries=retries,
            fence=fence,
            connect_timeout=connect_timeout,
            backoff=backoff,
            max_timeouts=max_timeouts,
            start_up=start_up,
            ssl_context=ssl_context,
        )
        self.url: str = self._target.session.name
        self._start_offline = start_offline
        self._recorder = recorder
        self._connection: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<TracerClient {self.url} {self.state}>"

    # Opening and closing.

    async def open(self) -> None:
        """Connect. After that the client reconnects whenever the connection is lost.

        Raises a `LinkError` if there is no connection now (unless *start_offline*), LinkClosedError if the client was
        opened or closed before, RuntimeError if no asyncio event loop is running.
        """
        opened = None if self._start_offline else running_loop().create_future()
        self._start(opened)
        if opened is not None:
            try:
                await opened
            except BaseException:
                # If a cancellation came at the same moment, asyncio would log that the exception was never retrieved.
                if opened.done() and not opened.cancelled():
                    opened.exception()
                await self.aclose()
                raise

    def _start(
        self,
        opened: asyncio.Future[None] | None,
        places: AbstractAsyncContextManager[object] | None = None,
        call_at: CallAt | None = None,
    ) -> Connection:
        if self._closed:
            raise LinkClosedError(self.url, "the client is closed and cannot be opened again: create a new one")
        if self._connection is not None:
            self._connection.check_loop()
            raise LinkClosedError(self.url, "the client has already been opened: open it only once")
        connection = self._connection = Connection(self._target.session, Trace(self.url, self._recorder), call_at)
        self._opened = opened
        keeper = LinkKeeper(self._target, connection, places)
        # Stored, because asyncio keeps only a weak reference to a running task.
        self._keeper = asyncio.create_task(keeper.run(opened), name=f"tracer_async {self.url}")
        return connection

    async def aclose(self) -> None:
        """Close the client: requests fail with LinkClosedError, iterations end. May be called again."""
        self._close()
        if self._connection is not None and self._keeper is not None:
            # Not `await self._keeper`: it was cancelled, and would raise CancelledError here. A transport factory that
            # ignores its cancellation must not prevent the close.
            await asyncio.wait([self._keeper], timeout=self._target.session.link_timeout)
            await self._connection.wait_closed()
        if self._recorder is not None:
            # In a thread, because it waits for the disk. A disk that hangs must not prevent the close.
            await asyncio.wait([call(self._recorder.close)], timeout=_RECORDER_TIMEOUT)

    def _close(self) -> None:
        """Do the part of closing that needs no await, so that a cancellation cannot prevent it."""
        if self._closed:
            return  # a second cancel() would interrupt the cleanup that the first one has started
        if self._connection is not None and self._keeper is not None:
            self._connection.close()
            self._keeper.cancel()
            if self._opened is not None and not self._opened.done():
                self._opened.set_exception(LinkClosedError(self.url, "the client was closed"))
        self._closed = True

    async def wait_closed(self, *, until: float = inf) -> bool:
        """Wait until the client is closed, or until *until* on the event loop's clock. Return whether it is closed.

        A client that was never opened counts as closed. Raises RuntimeError in another event loop.
        """
        connection = self._connection
        if connection is None:
            return True
        connection.check_loop()
        return await connection.status.wait_closed(until)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # Requests.

    async def read_realtime(self, *, max_age: float = 0.0) -> RealtimeData:
        """Return the present measurements of the controller.

        Callers at the same time share one exchange. With *max_age*, in seconds, the last reading is returned if it is
        not older and no command was sent after it. Raises ResponseTimeoutError, MalformedReplyError or a `LinkError`.
        """
        connection = self._open_connection()
        # Skip the check for the default, which most calls use.
        if (type(max_age) is not float or max_age) and check_number("max_age", max_age) > 0:
            recent = connection.recent_reading(max_age)
            if recent is not None:
                return recent
        answer: Answer[RealtimeData] = await connection.ask(_READ)
        return answer.value

    async def read(self) -> Reading:
        """Return the present measurements with their time and maximum age. Raises the errors of `read_realtime`."""
        connection = self._open_connection()
        return connection.reading(await connection.ask(_READ))

    async def set_load(self, on: bool) -> LoadState:
        """Switch the load. Return when it is known to be switched.

        If the answer is missing, ambiguous, or not the requested state, the state is read back, and the command is
        repeated up to *retries* times. Before the first switch on a connection, a reading is taken and nothing is sent
        for 0.25 s. Other commands wait until the switch ends.

        Raises LoadRefusedError if the controller answered but did not switch, LoadUnknownError if the state of the load
        is not known, LinkTimeoutError if there was no connection and nothing was sent.
        """
        # Checked before anything is sent: the string "off" is true, for example.
        load = LoadState(check_flag("load", on))
        await self._open_connection().switch_load(load)
        return load

    async def write_settings(self, settings: ControlSettings) -> None:
        """Write all control settings. Unverified on hardware: there is no public capture of this command.

        The command is never repeated. Raises ResponseTimeoutError or LinkLostError if there was no answer: the settings
        may have been written or not, and the protocol has no command to read them back.
        """
        await self.execute(WriteSettings(settings))

    async def execute(self, command: Command[R]) -> R:
        """Send any command and return its answer.

        On a new connection, and between two equal commands, the answer to a command could be confused with a late one.
        So a reading is taken first, and nothing is sent for 0.25 s. This does not apply to readings.

        Raises the same errors as `read_realtime`, and AmbiguousReplyError if the answer may still belong to another
        request.
        """
        # Only readings are shared between callers: two equal commands must be executed twice.
        answer: R = (await self._open_connection().ask(command)).value
        return answer

    # Watching.

    def frames(self, maxsize: int = 256) -> Subscription[Frame]:
        """Return an async iterator over all good frames that are received from now on, including answers.

        It holds *maxsize* frames. While it is full, the oldest frame is dropped and counted in ``dropped``. It
        continues after a reconnection, and ends when the client is closed. Raises LinkClosedError if the client is not
        open.
        """
        connection = self._open_connection()
        subscription: Subscription[Frame] = Subscription(maxsize)
        connection.subscribe(subscription)
        return subscription

    def poll(self, interval: float) -> AsyncGenerator[Reading, None]:
        """Read every *interval* seconds until the client is closed. See `tracer_async.poll`."""
        self._open_connection().check_loop()
        return poll(self, interval)

    @property
    def state(self) -> ConnectionState:
        """The state of the connection."""
        return self._connection.status.state if self._connection is not None else ConnectionState.CLOSED

    def state_changes(self) -> Subscription[ConnectionState]:
        """Return an async iterator over each new state of the connection. It ends when the client is closed.

        Raises LinkClosedError if the client is not open.
        """
        connection = self._open_connection()
        watcher: Subscription[ConnectionState] = Subscription(64)
        connection.check_loop()
        connection.status.watch(watcher)
        return watcher

    @property
    def stats(self) -> SessionStats:
        """The counters of this client."""
        if self._connection is None:
            return SessionStats(*[0] * len(SessionStats._fields))
        return self._connection.stats

    def connection(self) -> Connection:
        """Return the connection of the open client, for other modules of this library.

        Raises LinkClosedError if it is not open, RuntimeError in another event loop or thread.
        """
        connection = self._open_connection()
        connection.check_loop()
        return connection

    def _open_connection(self) -> Connection:
        connection = self._connection
        if connection is None:
            raise LinkClosedError(
                self.url, "the client is not open: use it as `async with TracerClient(...) as tracer`"
            )
        if self._closed:
            raise LinkClosedError(self.url, "the client is closed")
        return connection
