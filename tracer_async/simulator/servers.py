"""A simulated controller on a real wire: a TCP port, a Unix socket, or a pseudo-terminal that looks like a serial port.

Each server is an async context manager that gives the URL to connect to. It runs in a task of its own and ends with
the block: connections are closed, nothing is left behind. Leaving out *tracer* makes a `SimulatedTracer` as it comes.

With *baud_pacing* a reply leaves no sooner than a wire of 9600 baud would have carried the request and the reply; it
then leaves whole. With *faults* things go wrong: see `tracer_async.simulator.faults`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import anyio
from anyio.abc import ByteStream, Listener, SocketAttribute

from tracer_async.protocol._numbers import check_whole
from tracer_async.simulator._faulty_port import port_of
from tracer_async.simulator._port import QUIET, BaudPacing, Ending, Lose, Port, Wait
from tracer_async.simulator.device import SimulatedTracer
from tracer_async.simulator.faults import Faults

if sys.platform != "win32":
    import termios
    import tty

__all__ = ["serve_pty", "serve_tcp", "serve_unix"]

_log = logging.getLogger("tracer_async.simulator")

# Seconds after which a reply that nobody reads from a pseudo-terminal is thrown away.
_UNREAD = 1.0

# Seconds after which a server that could not accept a client tries again, and between two log lines about that.
_ACCEPT_RETRY = 0.5
_ACCEPT_LOG_INTERVAL = 60.0


@asynccontextmanager
async def serve_tcp(
    tracer: SimulatedTracer | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    baud_pacing: bool = False,
    faults: Faults | None = None,
) -> AsyncIterator[str]:
    """Serve a controller on a TCP port, 0 for a free one, to any number of clients; give ``tcp://HOST:PORT``.

    Raises OSError if the address cannot be listened on, TypeError or ValueError for a port that is not 0 to 65535.
    """
    port = check_whole("port", port)
    serve_client = _client_server(tracer, faults, baud_pacing=baud_pacing)
    listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
    async with listener:
        bound = listener.extra_attributes[SocketAttribute.local_port]()
        url = f"tcp://[{host}]:{bound}" if ":" in host else f"tcp://{host}:{bound}"
        async with _in_the_background(_serve_clients(url, listener.listeners, serve_client)):
            yield url


@asynccontextmanager
async def serve_unix(
    tracer: SimulatedTracer | None = None,
    *,
    path: str | os.PathLike[str],
    baud_pacing: bool = False,
    faults: Faults | None = None,
) -> AsyncIterator[str]:
    """Serve a controller on a Unix socket to any number of clients; give ``unix:PATH``. Removes the socket at the end.

    Raises OSError if there can be no socket at *path*, NotImplementedError on Windows.
    """
    if sys.platform == "win32":
        raise NotImplementedError("Windows has no Unix sockets for asyncio: serve TCP instead")
    serve_client = _client_server(tracer, faults, baud_pacing=baud_pacing)
    listener = await anyio.create_unix_listener(path)
    url = f"unix:{os.fspath(path)}"
    try:
        async with listener, _in_the_background(_serve_clients(url, [listener], serve_client)):
            yield url
    finally:
        # One system call, made here so that no cancellation can come before it.
        Path(path).unlink(missing_ok=True)  # noqa: ASYNC240


@asynccontextmanager
async def serve_pty(
    tracer: SimulatedTracer | None = None, *, baud_pacing: bool = False, faults: Faults | None = None
) -> AsyncIterator[str]:
    """Serve a controller on a new pseudo-terminal; give ``serial://PATH``, to be opened like any serial port.

    It can be opened and closed again and again. What no client reads within a second is lost, as on a wire.
    Raises NotImplementedError on Windows, ValueError for faults that need a connection.
    """
    if sys.platform == "win32":
        raise NotImplementedError("Windows has no pseudo-terminals: serve TCP instead")
    if faults is not None:
        faults.check_serial()
    controller, terminal = os.openpty()
    try:
        # The server keeps the client's side open too: else each client that leaves would end the line.
        tty.setraw(terminal)
        os.set_blocking(controller, False)
        line = _PtyLine(controller, terminal)
        port = port_of(tracer or SimulatedTracer(), faults)
        async with _in_the_background(_serve_stream(port, line.receive, line.send, baud_pacing=baud_pacing)):
            yield f"serial://{os.ttyname(terminal)}"
    finally:
        os.close(controller)
        os.close(terminal)


async def _serve_stream(
    port: Port,
    receive: Callable[[], Awaitable[bytes]],
    send: Callable[[bytes], Awaitable[None]],
    *,
    baud_pacing: bool,
) -> None:
    """Answer what *receive* brings with *send*, until one of them raises. Every wire goes through here."""
    pacing = BaudPacing() if baud_pacing else None
    steps = port.greet()
    while True:
        for step in steps:
            if isinstance(step, bytes):
                if pacing is not None:
                    await anyio.sleep_until(pacing.send(len(step)))
                await send(step)
            elif isinstance(step, Wait):
                await anyio.sleep(step.seconds)
            elif isinstance(step, Lose):
                with anyio.move_on_after(step.seconds):
                    await _lose(receive)
            elif step is Ending.HANG_UP:
                return
            else:
                await _lose(receive)
        data = None
        if port.pending:
            with anyio.move_on_after(QUIET):
                data = await receive()
        else:
            data = await receive()
        if data is not None and pacing is not None:
            pacing.receive(len(data), anyio.current_time())
        steps = port.flush() if data is None else port.feed(data)


async def _lose(receive: Callable[[], Awaitable[bytes]]) -> NoReturn:
    """Throw away whatever comes. It is read for that, because who does not read does not notice a client that goes."""
    while True:
        await receive()


def _client_server(
    tracer: SimulatedTracer | None, faults: Faults | None, *, baud_pacing: bool
) -> Callable[[ByteStream], Coroutine[Any, Any, None]]:
    """Return what serves one client of a listener; all of them share the controller."""
    shared = tracer or SimulatedTracer()

    async def serve_client(stream: ByteStream) -> None:
        # A client may go at any moment, in any way: that is no matter to the others.
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with stream:
                await _serve_stream(port_of(shared, faults), stream.receive, stream.send, baud_pacing=baud_pacing)

    return serve_client


async def _serve_clients(
    url: str, listeners: Iterable[Listener[Any]], serve_client: Callable[[ByteStream], Coroutine[Any, Any, None]]
) -> None:
    """Serve the clients of all *listeners* until it is cancelled."""

    async def accept(listener: Listener[Any]) -> None:
        logged = False
        quiet_until = -math.inf
        while True:
            try:
                client = await listener.accept()  # type: ignore[attr-defined]  # all but MultiListener have it
            except (OSError, anyio.BrokenResourceError) as error:
                # Mostly there are no descriptors left, which passes when clients go. anyio's own serve() would end.
                reason = getattr(error.__cause__ or error, "strerror", None) or error
                now = anyio.current_time()
                if not logged and now >= quiet_until:
                    _log.warning("%s: cannot accept a client (%s), trying again every %g s", url, reason, _ACCEPT_RETRY)
                    logged = True
                    quiet_until = now + _ACCEPT_LOG_INTERVAL
                await anyio.sleep(_ACCEPT_RETRY)
                continue
            clients.start_soon(serve_client, client)
            if logged:
                _log.warning("%s: accepts clients again", url)
                logged = False

    async with anyio.create_task_group() as clients:
        for listener in listeners:
            clients.start_soon(accept, listener)


@asynccontextmanager
async def _in_the_background(serving: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run *serving* until the block ends.

    A task rather than a task group around the block: a test fixture may leave the block in another task than entered
    it, and an error in the block comes out as itself, not in a group. What *serving* raises comes out at the end.
    """
    task = asyncio.create_task(serving)
    try:
        yield
    finally:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
    if not task.cancelled():
        task.result()


class _PtyLine:
    """The controller's end of a pseudo-terminal."""

    __slots__ = ("_controller", "_terminal", "_unread")

    def __init__(self, controller: int, terminal: int) -> None:
        self._controller = controller
        self._terminal = terminal
        self._unread = False

    async def receive(self) -> bytes:
        while True:
            if self._unread:
                with anyio.move_on_after(_UNREAD) as waiting:
                    await anyio.wait_readable(self._controller)
                if waiting.cancelled_caught:
                    self._discard()
                    continue
            else:
                await anyio.wait_readable(self._controller)
            with suppress(BlockingIOError):
                return os.read(self._controller, 4096)

    async def send(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._controller, data) :]
            except BlockingIOError:
                with anyio.move_on_after(_UNREAD) as waiting:
                    await anyio.wait_writable(self._controller)
                if waiting.cancelled_caught:
                    self._discard()
        self._unread = True

    def _discard(self) -> None:
        """Throw away what no client has read, so that the next one does not take it for the answer to its request."""
        self._unread = False
        termios.tcflush(self._terminal, termios.TCIFLUSH)
