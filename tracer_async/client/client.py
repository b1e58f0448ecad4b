"""The client of one controller: asks it over its link for as long as the application runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Self, TypeVar

from tracer_async.client._connection import Connection, ConnectionState, running_loop
from tracer_async.client._options import Target
from tracer_async.client._reconnect import LinkKeeper
from tracer_async.client._timer_wheel import CallAt
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
from tracer_async.transport.opening import TransportFactory

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

__all__ = ["TracerClient"]

R = TypeVar("R")

_READ = ReadRealtime()


class TracerClient:
    """One controller. ``async with TracerClient(url) as tracer: await tracer.read_realtime()``.

    Every method may be called from any number of tasks of one event loop at once, and cancelled at any moment. In
    another event loop or thread than that in which the client was opened, methods raise RuntimeError and send nothing.
    A client is used once: closed, it stays closed.

    :param url: ``/dev/ttyUSB0``, ``COM3``, ``host:port``, ``serial://``, ``tcp://``, ``tls://``, ``unix:``, ``sim:``;
        or a transport factory of your own: called with a protocol factory, it returns ``(transport, protocol)``.
    :param controller_id: The ID in requests, 0 to 255. Controllers ignore it.
    :param timeout: Seconds to wait for an answer, each time a request is sent.
    :param retries: How often a request without an answer is sent again. Settings never are.
    :param fence: Seconds for which nothing is sent after a request was abandoned, if its reply does not come earlier.
    :param connect_timeout: Seconds that an attempt to connect may take, and that a request waits for a connection.
    :param backoff: Initial and maximum delay between attempts to reconnect, in seconds. Each delay is shortened at
        random by up to half. Only a good frame resets it.
    :param max_timeouts: Requests in a row without an answer after which a network connection is given up and
        established again. Cancelled requests count, too.
    :param start_offline: Whether `open` returns although there is no connection yet, instead of raising.
    :param start_up: Whether requests begin with the bytes that wake a sleeping power line.
    :param ssl_context: For ``tls://``; without it, the system's certificates decide.
    :raises TypeError: if an option is not a number, or a float where a whole number is meant.
    :raises ValueError: if an option is out of its range (``docs/ranges.md``).
    :raises AddressError: if the URL names no controller.
    :raises MissingExtraError: if a package is needed that is not installed.
    """

    # A service may have thousands of clients: without slots each would take a fifth more memory.
    __slots__ = (
        "__weakref__",
        "_closed",
        "_connection",
        "_keeper",
        "_opened",
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
        self._connection: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<TracerClient {self.url} {self.state}>"

    # Opening and closing.

    async def open(self) -> None:
        """Connect; from then on the connection is kept.

        Raises a `LinkError` if the controller cannot be reached now, LinkClosedError if the client was opened or
        closed before, RuntimeError if no asyncio event loop is running.
        """
        opened = None if self._start_offline else running_loop().create_future()
        self._start(opened)
        if opened is not None:
            try:
                await opened
            except BaseException:
                if opened.done() and not opened.cancelled():
                    opened.exception()  # retrieved, even where a cancellation came at the same moment
                await self.aclose()
                raise

    def _start(
        self,
        opened: asyncio.Future[None] | None,
        places: AbstractAsyncContextManager[object] | None = None,
        call_at: CallAt | None = None,
    ) -> Connection:
        if self._closed:
            raise LinkClosedError(self.url, "the client is closed; a client is used once, make a new one")
        if self._connection is not None:
            self._connection.check_loop()
            raise LinkClosedError(self.url, "the client has been opened already")
        connection = self._connection = Connection(self._target.session, call_at)
        self._opened = opened
        keeper = LinkKeeper(self._target, connection, places)
        self._keeper = asyncio.create_task(keeper.run(opened), name=f"tracer_async {self.url}")
        return connection

    async def aclose(self) -> None:
        """Close for good: requests fail with LinkClosedError, iterations end. May be called at any time, and again."""
        self._close()
        if self._connection is not None and self._keeper is not None:
            await asyncio.wait([self._keeper])
            await self._connection.wait_closed()

    def _close(self) -> None:
        """Do all of closing that need not be waited for, so that a cancellation cannot come before it."""
        if self._closed:
            return  # a second cancellation would interrupt what the first one waits for
        if self._connection is not None and self._keeper is not None:
            self._connection.close()
            self._keeper.cancel()
            if self._opened is not None and not self._opened.done():
                self._opened.set_exception(LinkClosedError(self.url, "the client was closed"))
        self._closed = True

    async def wait_closed(self) -> None:
        """Wait until somebody closes the client. Returns at once if it is closed or was never opened."""
        if self._connection is not None:
            await self._connection.wait_closing()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # Requests.

    async def read_realtime(self, *, max_age: float = 0.0) -> RealtimeData:
        """Return what the controller measures now.

        Callers at the same time share one exchange. With *max_age*, in seconds, the last reading is returned again if
        it is no older and no command was sent after it. Raises ResponseTimeoutError, MalformedReplyError or a
        `LinkError`.
        """
        connection = self._open_connection()
        # Most calls leave out max_age.
        if (type(max_age) is not float or max_age) and check_number("max_age", max_age) > 0:
            recent = connection.recent_reading(max_age)
            if recent is not None:
                return recent
        answer: Answer[RealtimeData] = await connection.ask(_READ, join=True)
        return answer.value

    async def read(self) -> Reading:
        """As `read_realtime`, with the time of the reading and how old it may be."""
        connection = self._open_connection()
        return connection.reading(await connection.ask(_READ, join=True))

    async def set_load(self, on: bool) -> LoadState:
        """Switch the load, and return only once it is known to be switched.

        Where the answer is missing, ambiguous, or another state than the wanted one, the state is read back, and the
        command is repeated up to *retries* times. Before the first switch on a connection a reading is taken, and the
        line is kept quiet for 0.25 s. Other commands wait until it ends. Raises LoadRefusedError if the controller
        says that it leaves the load as it is, LoadUnknownError if its state cannot be found out, LinkTimeoutError if
        there is no connection and nothing was sent.
        """
        load = LoadState(check_flag("load", on))
        await self._open_connection().switch_load(load)
        return load

    async def write_settings(self, settings: ControlSettings) -> None:
        """Write all control settings at once. Unverified on hardware: nobody has published a capture of this command.

        It is sent once and never repeated. Raises ResponseTimeoutError or LinkLostError if no answer came: then the
        settings may have been written or not, and no command of the protocol reads them back.
        """
        await self.execute(WriteSettings(settings))

    async def execute(self, command: Command[R]) -> R:
        """Send any command and return its answer.

        Before a command other than a reading is sent, a reading is taken and the line is kept quiet for 0.25 s,
        wherever else its answer could be confused with that to an earlier request: on a new connection, and between
        two equal commands. Raises as `read_realtime` does, and AmbiguousReplyError if the answer may belong to
        another request all the same.
        """
        answer: R = (await self._open_connection().ask(command, join=command == _READ)).value
        return answer

    # Watching.

    def frames(self, maxsize: int = 256) -> Subscription[Frame]:
        """Return an async iterator over all good frames received from now on, answers included.

        It holds *maxsize* frames; while it is full, the oldest one is dropped, and counted in ``dropped``. It goes on
        when the connection is established again, and ends when the client is closed.
        """
        connection = self._open_connection()
        subscription: Subscription[Frame] = Subscription(maxsize)
        connection.subscribe(subscription)
        return subscription

    def poll(self, interval: float) -> AsyncGenerator[Reading, None]:
        """Read every *interval* seconds for as long as the client is open: see `tracer_async.poll`."""
        self._open_connection().check_loop()
        return poll(self, interval)

    @property
    def state(self) -> ConnectionState:
        """The state of the connection."""
        return self._connection.state if self._connection is not None else ConnectionState.CLOSED

    def state_changes(self) -> Subscription[ConnectionState]:
        """Return an async iterator over the connection's states from now on; it ends when the client is closed.

        Raises LinkClosedError if the client was never opened.
        """
        connection = self._open_connection()
        watcher: Subscription[ConnectionState] = Subscription(64)
        connection.watch(watcher)
        return watcher

    @property
    def stats(self) -> SessionStats:
        """The counters of this client."""
        if self._connection is None:
            return SessionStats(*[0] * len(SessionStats._fields))
        return self._connection.stats

    def _open_connection(self) -> Connection:
        connection = self._connection
        if connection is None:
            raise LinkClosedError(
                self.url, "the client is not open: use it as `async with TracerClient(...) as tracer`"
            )
        if self._closed:
            raise LinkClosedError(self.url, "the client is closed")
        return connection
