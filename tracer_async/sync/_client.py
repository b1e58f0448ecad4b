"""The blocking client of one controller."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Self, TypeVar

from tracer_async.client._options import is_on_network, session_options
from tracer_async.client._recording import LineRecorder
from tracer_async.client._results import reading_of
from tracer_async.client._status import ConnectionState
from tracer_async.client._ticks import Ticks
from tracer_async.client.reading import Reading
from tracer_async.errors import LinkClosedError, TracerError
from tracer_async.protocol import (
    Answer,
    Command,
    ControlSettings,
    LoadState,
    ReadRealtime,
    RealtimeData,
    SessionStats,
    WriteSettings,
)
from tracer_async.protocol._numbers import check_backoff, check_flag, check_number
from tracer_async.sync._closed_flag import ClosedFlag
from tracer_async.sync._driver import Driver
from tracer_async.sync._opening import opener
from tracer_async.transport.address import parse_address

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

__all__ = ["TracerClient"]

R = TypeVar("R")

_READ = ReadRealtime()


class TracerClient:
    """The blocking client of one controller: ``with TracerClient(url) as tracer: tracer.read_realtime()``.

    It has the options, guarantees and errors of `tracer_async.TracerClient`, and its methods except `frames`,
    `state_changes` and `wait_closed`; `close` replaces `aclose`. It needs neither an event loop nor a thread. So it
    works only during a call: a lost connection is noticed and opened again by the next call.

    Any number of threads may call its methods. They take turns: a call waits for the calls of other threads, at most
    *connect_timeout* seconds. A reading that arrives in that time is the answer to all threads that wait for one. Each
    call can be interrupted at any moment (Ctrl-C), and the next call works. Signal handlers may only call `close`. A
    call that such a handler has interrupted closes the connection when it continues.
    A closed client cannot be opened again. After a fork the methods raise RuntimeError in the child: open a new client.

    :param url: ``/dev/ttyUSB0``, ``COM3``, ``host:port``, ``serial://``, ``tcp://``, ``tls://``, ``unix:``, ``sim:``.
    :param controller_id: The ID in requests, 0 to 255. The default is that of the protocol document. Controllers ignore
        it.
    :param timeout: Seconds to wait for an answer, each time a request is sent.
    :param retries: How often a request without an answer is sent again. Settings are never sent again.
    :param fence: Seconds for which nothing is sent after a request was abandoned, unless its reply comes earlier.
    :param connect_timeout: Maximum seconds of an attempt to connect, and maximum seconds that a request waits for a
        connection. If that connection is lost before the request can be sent, it waits again, at most *retries* times.
        It does not limit how long a serial port takes to open or a name to resolve.
    :param backoff: Initial and maximum delay between attempts to reconnect, in seconds. Each delay is shortened at
        random by up to half. Only a good frame resets it to the initial delay.
    :param max_timeouts: Consecutive requests without an answer after which a network connection is closed and
        established again. Interrupted requests count too.
    :param start_offline: Whether `open` returns at once, and the first call connects. By default `open` raises if there
        is no connection.
    :param start_up: Whether requests begin with the start-up bytes, which wake a sleeping power line.
    :param ssl_context: For ``tls://``. By default the certificates of the system are used.
    :param recorder: Records all bytes in both directions: a `tracer_async.capture.Recorder`. The client closes it.
    :raises TypeError: if an option is not a number, or a float instead of a whole number.
    :raises ValueError: if an option is out of its range (``docs/ranges.md``).
    :raises AddressError: if the URL is not a valid address, or asks for serialx.
    :raises MissingExtraError: if a package that is needed is not installed.
    """

    def __init__(
        self,
        url: str,
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
        address = parse_address(url)
        self._options = session_options(
            str(address),
            on_network=is_on_network(address),
            controller_id=controller_id,
            timeout=timeout,
            retries=retries,
            fence=fence,
            connect_timeout=connect_timeout,
            max_timeouts=max_timeouts,
            start_up=start_up,
        )
        self._backoff = check_backoff(backoff)
        self._opener = opener(address, ssl_context=ssl_context)
        self.url: str = self._options.name
        self._start_offline = start_offline
        self._recorder = recorder
        self._driver: Driver | None = None
        # Ends the waits of `poll`.
        self._closed = ClosedFlag()

    def __repr__(self) -> str:
        return f"<TracerClient {self.url} {self.state}>"

    # Opening and closing.

    def open(self) -> None:
        """Connect. After that the client reconnects when it is used and the connection is lost.

        Raises a `LinkError` if there is no connection now (unless *start_offline*), LinkClosedError if the client was
        opened or closed before.
        """
        if self._closed.is_set:
            raise LinkClosedError(self.url, "the client is closed and cannot be opened again: create a new one")
        if self._driver is not None:
            raise LinkClosedError(self.url, "the client has already been opened: open it only once")
        self._driver = Driver(self._options, self._opener, self._backoff, self._recorder)
        try:
            if not self._start_offline:
                self._driver.connect()
            self._open_driver()  # a signal handler may have closed it just now
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the client: calls of other threads fail with LinkClosedError, `poll` ends. May be called again.

        A signal handler may call it at any moment. If it has interrupted a call, that call closes the connection.
        """
        self._closed.set()
        if self._driver is not None:
            self._driver.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Requests.

    def read_realtime(self, *, max_age: float = 0.0) -> RealtimeData:
        """Return the present measurements of the controller.

        With *max_age*, in seconds, the last reading is returned if it is not older and no command was sent after it.
        Raises ResponseTimeoutError, MalformedReplyError or a `LinkError`.
        """
        driver = self._open_driver()
        # Skip the check for the default, which most calls use.
        if (type(max_age) is not float or max_age) and check_number("max_age", max_age) > 0:
            recent = driver.recent_reading(max_age)
            if recent is not None:
                return recent
        answer: Answer[RealtimeData] = driver.ask(_READ)
        return answer.value

    def read(self) -> Reading:
        """Return the present measurements with their time and maximum age. Raises the errors of `read_realtime`."""
        return reading_of(self._open_driver().ask(_READ), time.monotonic)

    def set_load(self, on: bool) -> LoadState:
        """Switch the load. Return when it is known to be switched.

        If the answer is missing, ambiguous, or not the requested state, the state is read back, and the command is
        repeated up to *retries* times. Before the first switch on a connection, a reading is taken and nothing is sent
        for 0.25 s.

        Raises LoadRefusedError if the controller answered but did not switch, LoadUnknownError if the state of the load
        is not known, LinkTimeoutError if there was no connection and nothing was sent.
        """
        # Checked before anything is sent: the string "off" is true, for example.
        load = LoadState(check_flag("load", on))
        self._open_driver().switch_load(load)
        return load

    def write_settings(self, settings: ControlSettings) -> None:
        """Write all control settings. Unverified on hardware: there is no public capture of this command.

        The command is never repeated. Raises ResponseTimeoutError or LinkLostError if there was no answer: the settings
        may have been written or not, and the protocol has no command to read them back.
        """
        self.execute(WriteSettings(settings))

    def execute(self, command: Command[R]) -> R:
        """Send any command and return its answer.

        On a new connection, and between two equal commands, the answer to a command could be confused with a late one.
        So a reading is taken first, and nothing is sent for 0.25 s. This does not apply to readings.

        Raises the same errors as `read_realtime`, and AmbiguousReplyError if the answer may still belong to another
        request.
        """
        answer: R = self._open_driver().ask(command).value
        return answer

    # Watching.

    def poll(self, interval: float) -> Generator[Reading, None, None]:
        """Read at once, and then every *interval* seconds until the client is closed. Yield each reading or failure.

        Ticks are whole intervals after the first one, so they do not drift. Ticks that pass during a reading, or before
        the caller asks for the next one, are skipped and counted in `Reading.skipped`. Raises TypeError for an interval
        that is not a number, ValueError for one out of range (0.001 s or more), LinkClosedError if the client is not
        open.
        """
        self._open_driver()
        return self._poll(check_number("interval", interval))

    def _poll(self, interval: float) -> Generator[Reading, None, None]:
        ticks = Ticks(interval, time.monotonic())
        while True:
            try:
                reading = self.read()
            except LinkClosedError:
                return
            except TracerError as error:
                reading = Reading(time.time(), None, error)
            yield reading._replace(skipped=ticks.skipped) if ticks.skipped else reading
            now = time.monotonic()
            if self._closed.wait(ticks.next(now) - now):
                return

    @property
    def state(self) -> ConnectionState:
        """The state of the connection, as the last call has left it."""
        return self._driver.state if self._driver is not None else ConnectionState.CLOSED

    @property
    def stats(self) -> SessionStats:
        """The counters of this client."""
        if self._driver is None:
            return SessionStats(*[0] * len(SessionStats._fields))
        return self._driver.stats

    def _open_driver(self) -> Driver:
        if self._driver is None:
            raise LinkClosedError(self.url, "the client is not open: use it as `with TracerClient(...) as tracer`")
        if self._closed.is_set:
            raise LinkClosedError(self.url, "the client is closed")
        return self._driver
