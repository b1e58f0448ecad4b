"""The client: ask one controller, over whatever link there is to it, for as long as the service runs."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING, Self, TypeVar
from weakref import WeakSet

from tracer_async.client._line import Line, LineOptions, LineStats
from tracer_async.client._timer_wheel import CallAt
from tracer_async.client.polling import poll
from tracer_async.client.reading import Reading
from tracer_async.client.subscription import Subscription
from tracer_async.errors import (
    LinkClosedError,
    LinkError,
    LinkLostError,
    LoadRefusedError,
    LoadUnknownError,
    MalformedReplyError,
    ResponseTimeoutError,
    TracerError,
)
from tracer_async.protocol import (
    Command,
    ControlSettings,
    Frame,
    LoadState,
    ManualControl,
    ReadRealtime,
    RealtimeData,
    WriteSettings,
)
from tracer_async.transport.address import SerialAddress, SimAddress, parse_address
from tracer_async.transport.link import LinkProtocol
from tracer_async.transport.opening import TransportFactory, open_link, transport_factory

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

__all__ = ["LinkState", "TracerClient"]

R = TypeVar("R")

_log = logging.getLogger("tracer_async")

_READ = ReadRealtime()


class LinkState(StrEnum):
    """What there is between a client and its controller."""

    CONNECTING = "connecting"
    """It is being opened for the first time."""
    UP = "up"
    """Open. Whether the controller answers is another matter."""
    DOWN = "down"
    """Lost, and being opened again."""
    CLOSED = "closed"
    """Not opened yet, or closed for good."""


class TracerClient:
    """One controller. ``async with TracerClient(url) as tracer: await tracer.read_realtime()``.

    Every method may be called from any number of tasks at once, and cancelled at any moment. A client is used once:
    closed, it stays closed.

    :param url: ``/dev/ttyUSB0``, ``COM3``, ``host:port``, ``serial://``, ``tcp://``, ``tls://``, ``unix:``, ``sim:``;
        or one's own transport factory: called with a protocol factory, it returns ``(transport, protocol)``.
    :param controller_id: The ID in requests, 0 to 255. Controllers ignore it.
    :param timeout: Seconds to wait for an answer, each time a request is sent.
    :param retries: How often a request without an answer is sent again. Settings never are.
    :param fence: Seconds that the line is kept free after a request was given up, if its reply does not come earlier.
    :param connect_timeout: Seconds that an attempt to open the link may take, and that a request waits for a link that
        is down.
    :param backoff: Seconds between attempts to open a lost link: the first, and the longest that it doubles to. Each is
        shortened by up to half, at random. Only a frame received starts it anew.
    :param dead_after: After how many timeouts in a row a link over a network is taken for dead and opened anew.
    :param start_offline: Whether `open` comes back although there is no link yet, instead of raising.
    :param start_up: Whether requests begin with the bytes that wake a sleeping power line.
    :param ssl_context: For ``tls://``; without it, the system's certificates decide.
    :raises AddressError: if the URL names no controller.
    :raises MissingExtraError: if a package is needed that is not installed.
    """

    # A service may have thousands of clients: without slots each would take a fifth more memory.
    __slots__ = (
        "__weakref__",
        "_backoff",
        "_factory",
        "_gate",
        "_keeper",
        "_last",
        "_line",
        "_link",
        "_opened",
        "_options",
        "_start_offline",
        "_watchers",
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
        dead_after: int = 3,
        start_offline: bool = False,
        start_up: bool = True,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if not 0 <= controller_id <= 0xFF:
            raise ValueError(f"controller_id must be 0 to 255, not {controller_id}")
        for name, value in (("timeout", timeout), ("connect_timeout", connect_timeout), ("backoff", backoff[0])):
            if not value > 0:
                raise ValueError(f"{name} must be above 0 seconds, not {value}")
        if not fence >= 0:
            raise ValueError(f"fence must be 0 seconds or more, not {fence}")
        if retries < 0 or dead_after < 1:
            raise ValueError(f"retries must be 0 or more and dead_after 1 or more, not {retries} and {dead_after}")
        if callable(url):
            self.url = getattr(url, "__name__", type(url).__name__)
            self._factory = url
            on_network = True
        else:
            address = parse_address(url)
            self.url = str(address)
            self._factory = transport_factory(address, ssl_context=ssl_context)
            on_network = not isinstance(address, SerialAddress | SimAddress)
        self._options = LineOptions(
            controller_id=controller_id,
            start_up=start_up,
            timeout=timeout,
            retries=retries,
            fence=fence,
            link_timeout=connect_timeout,
            dead_after=dead_after if on_network else None,
        )
        self._backoff = backoff
        self._start_offline = start_offline
        self._gate: AbstractAsyncContextManager[object] = nullcontext()
        self._line: Line | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._link = LinkState.CLOSED
        self._watchers: WeakSet[Subscription[LinkState]] | None = None
        self._last: tuple[float, RealtimeData] | None = None

    def __repr__(self) -> str:
        return f"<TracerClient {self.url} {self._link}>"

    # Opening and closing.

    async def open(self) -> None:
        """Open the link; from then on it is kept open. Raises a `LinkError` if it cannot be opened now."""
        opened = self._opened = None if self._start_offline else asyncio.get_running_loop().create_future()
        self._start()
        if opened is not None:
            try:
                await opened
            except BaseException:
                if opened.done() and not opened.cancelled():
                    opened.exception()  # seen, even where a cancellation came at the same moment
                await self.aclose()
                raise

    def _start(self, gate: AbstractAsyncContextManager[object] | None = None, call_at: CallAt | None = None) -> None:
        """Begin to keep the link, opening it only within *gate*, with timers by *call_at*: others may share both."""
        if self._line is not None:
            raise LinkClosedError(self.url, "a client is opened once; make a new one")
        if gate is not None:
            self._gate = gate
        line = self._line = Line(self.url, self._options, call_at)
        self._set_link(LinkState.CONNECTING)
        self._keeper = asyncio.create_task(self._keep_link(line, self._opened), name=f"tracer_async {self.url}")

    async def aclose(self) -> None:
        """Close for good: requests fail with LinkClosedError, iterations end. May be called at any time, and again."""
        line, keeper = self._line, self._keeper
        if line is None or keeper is None:
            return
        self._close()
        await asyncio.wait([keeper])
        if line.link is not None:
            await asyncio.wait([line.link.closed], timeout=self._options.link_timeout)

    def _close(self) -> None:
        """Do all of closing that need not be waited for, so that a cancellation cannot come before it."""
        if self._line is None or self._keeper is None:
            return
        self._set_link(LinkState.CLOSED)
        self._line.close()
        for watcher in list(self._watchers or ()):
            watcher.end()
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(LinkClosedError(self.url, "the client was closed"))
        self._keeper.cancel()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # Asking.

    async def read_realtime(self, *, max_age: float = 0.0) -> RealtimeData:
        """Return what the controller measures now.

        Callers at the same time share one exchange. With *max_age*, in seconds, the last reading is returned again if
        it is no older. Raises ResponseTimeoutError, MalformedReplyError or a `LinkError`.
        """
        if max_age > 0 and self._last is not None:
            since, data = self._last
            if asyncio.get_running_loop().time() - since <= max_age:
                return data
        frame, request = await self._open_line.ask(_READ, share=True)
        return self._realtime(frame, request.since)

    async def read(self) -> Reading:
        """As `read_realtime`, with the time of the reading and how old it may be."""
        frame, request = await self._open_line.ask(_READ, share=True)
        return self._reading(frame, request.since, request.answered_at)

    async def set_load(self, on: bool) -> LoadState:
        """Switch the load, and return only once it is known to be so.

        Where the answer is missing, in doubt or another one than asked for, the state is read back, and the command is
        repeated (*retries* times) while it was not followed. Raises LoadRefusedError if the controller leaves the load
        as it is, LoadUnknownError if its state cannot be found out, LinkTimeoutError if there is no link and nothing
        was sent.
        """
        line = self._open_line
        command = ManualControl(LoadState(on))
        reading = None
        for _ in range(self._options.retries + 1):
            asked = asyncio.get_running_loop().time()
            state = None
            try:
                frame, request = await line.ask(command, tries=1)
                state = self._decode(command, frame)
                if state is command.load and request.since >= asked:
                    return state
            except (ResponseTimeoutError, MalformedReplyError, LinkLostError):
                pass  # it may have been followed all the same
            finally:
                self._last = None
            reading = await self._read_back(line, on, asked)
            if reading.load_on == on:
                return command.load
            if state is not None:
                break
        assert reading is not None  # noqa: S101  # the loop runs at least once
        raise LoadRefusedError(self.url, on, reading)

    async def _read_back(self, line: Line, on: bool, asked: float) -> RealtimeData:
        """Return a reading that was certainly taken after *asked*."""
        try:
            while True:  # each answer settles an older request: it ends
                frame, request = await line.ask(_READ, share=True)
                if request.since >= asked:
                    return self._decode(_READ, frame)
        except (ResponseTimeoutError, MalformedReplyError, LinkError) as error:
            raise LoadUnknownError(self.url, on) from error

    async def write_settings(self, settings: ControlSettings) -> None:
        """Write all control settings at once. Unverified on hardware: nobody has published a sniff of this command.

        It is sent once, never again by itself. Raises ResponseTimeoutError or LinkLostError if no answer came: then
        the settings may have been written or not, and no command of the protocol reads them back.
        """
        await self.execute(WriteSettings(settings))

    async def execute(self, command: Command[R]) -> R:
        """Send any command and return its answer. Raises as `read_realtime` does.

        An answer to the last request of the same command may still be owed, if that one was given up: then the
        controller is asked for a reading first, whose answer settles it.
        """
        line = self._open_line
        while command.code != _READ.code and line.owes(command):
            await line.ask(_READ, share=True)
        try:
            frame, _ = await line.ask(command, share=command == _READ)
        finally:
            self._last = None
        return self._decode(command, frame)

    def _decode(self, command: Command[R], frame: Frame) -> R:
        try:
            return command.decode_reply(frame.data)
        except ValueError as error:
            raise MalformedReplyError(self.url, command.code, frame.data, str(error)) from error

    def _reading(self, frame: Frame, since: float, arrived: float) -> Reading:
        """Decode a reply to A0; both times on the loop's clock."""
        return Reading(time.time(), self._realtime(frame, since), None, arrived - since)

    def _realtime(self, frame: Frame, since: float) -> RealtimeData:
        """Decode a reply to A0 and remember it."""
        data = self._decode(_READ, frame)
        self._last = since, data
        return data

    # Watching.

    def frames(self, maxsize: int = 256) -> Subscription[Frame]:
        """Return an async iterator over all good frames received from now on, answers included.

        It holds *maxsize* frames; while it is full, the oldest gives way, and ``dropped`` counts it. It goes on over
        lost links and ends when the client is closed.
        """
        subscription: Subscription[Frame] = Subscription(maxsize)
        self._open_line.subscribe(subscription)
        return subscription

    def poll(self, interval: float) -> AsyncGenerator[Reading, None]:
        """Read every *interval* seconds for as long as the client is open: see `tracer_async.poll`."""
        _ = self._open_line  # raises if there is none
        return poll(self, interval)

    @property
    def link(self) -> LinkState:
        """What there is between this client and its controller."""
        return self._link

    def link_changes(self) -> Subscription[LinkState]:
        """Return an async iterator over the states of the link from now on; it ends when the client is closed."""
        watcher: Subscription[LinkState] = Subscription(64)
        if self._watchers is None:
            self._watchers = WeakSet()
        self._watchers.add(watcher)
        if self._line is not None and self._line.closed:
            watcher.end()
        return watcher

    @property
    def stats(self) -> LineStats:
        """The counters of this client."""
        return self._line.stats if self._line is not None else LineStats(*[0] * len(LineStats._fields))

    @property
    def _open_line(self) -> Line:
        if self._line is None:
            raise LinkClosedError(
                self.url, "the client is not open: use it as `async with TracerClient(...) as tracer`"
            )
        return self._line

    # Keeping the link.

    async def _keep_link(self, line: Line, opened: asyncio.Future[None] | None) -> None:
        first, longest = self._backoff
        delay = first
        was_up = True  # so that a first failure is logged too
        while True:
            try:
                async with self._gate:
                    link = await open_link(
                        self.url, self._factory, lambda: LinkProtocol(line), self._options.link_timeout
                    )
            except TracerError as error:
                if opened is not None and not opened.done():
                    opened.set_exception(error)
                    return
                line.down_because = error
                if was_up:
                    _log.warning("%s; trying on", error)
            else:
                if opened is not None and not opened.done():
                    opened.set_result(None)
                    _log.debug("%s: the link is open", self.url)
                elif not was_up:
                    # As loud as the loss was: else a log would show only half of what happened.
                    _log.warning("%s: the link is back", self.url)
                was_up = True
                self._set_link(LinkState.UP)
                frames = line.stats.frames
                await asyncio.shield(link.closed)
                if line.stats.frames > frames:
                    delay = first
                _log.warning(
                    "%s: the link was lost (%s); trying on", self.url, line.down_because or "closed by the other side"
                )
            was_up = False
            self._set_link(LinkState.DOWN)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, no secret
            delay = min(delay * 2, longest)

    def _set_link(self, state: LinkState) -> None:
        if state is not self._link:
            self._link = state
            for watcher in list(self._watchers or ()):
                watcher.put(state)
