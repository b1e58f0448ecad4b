"""Servers for a simulated controller: a TCP port, a Unix socket, or a pseudo-terminal that works like a serial port.

Each server is an async context manager that yields the URL to connect to. The server runs in its own task. At the end
of the block it closes all connections and removes its socket. Without *tracer* it serves a new `SimulatedTracer`.

A `Replay` instead of the tracer serves a recording.

With *baud_pacing* a reply is sent, in one piece, at the time at which a line of 9600 baud would have finished
transmitting the request and the reply. With *faults* the server injects faults: see `tracer_async.simulator.faults`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn

import anyio
from anyio.abc import ByteStream, Listener, SocketAttribute

from tracer_async.protocol._numbers import check_whole
from tracer_async.simulator._faulty_port import check_faults, make_port
from tracer_async.simulator._port import PARTIAL_REQUEST_TIMEOUT, BaudPacing, Discard, Ending, Idle, Port, Wait
from tracer_async.simulator._replay import Replay
from tracer_async.simulator.device import SimulatedTracer
from tracer_async.simulator.faults import Faults
from tracer_async.transport._socket_files import MadeSocket, refuse_taken

if sys.platform != "win32":
    import termios
    import tty

__all__ = ["serve_pty", "serve_tcp", "serve_unix"]

_log = logging.getLogger("tracer_async.simulator")

# Seconds after which a reply that no client has read from a pseudo-terminal is discarded. A serial port that is closed
# receives nothing, but a pseudo-terminal keeps the bytes for the next client.
_UNREAD_TIMEOUT = 1.0

# Seconds until a server that could not accept a client retries, and the minimum between two warnings about it.
_ACCEPT_RETRY = 0.5
_ACCEPT_LOG_INTERVAL = 60.0


@asynccontextmanager
async def serve_tcp(
    tracer: SimulatedTracer | Replay | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    baud_pacing: bool = False,
    faults: Faults | None = None,
) -> AsyncIterator[str]:
    """Serve a controller on a TCP port to any number of clients. Yield ``tcp://HOST:PORT``.

    Port 0 selects a free port. Raises OSError if the server cannot listen on the address, TypeError or ValueError
    for a port that is not 0 to 65535, ValueError for *faults* of a recording.
    """
    port = check_whole("port", port)
    serve_client = _serve_client_of(tracer, faults, baud_pacing=baud_pacing)
    listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
    async with listener:
        bound = listener.extra_attributes[SocketAttribute.local_port]()
        url = f"tcp://[{host}]:{bound}" if ":" in host else f"tcp://{host}:{bound}"
        async with _run_in_background(_serve_clients(url, listener.listeners, serve_client)):
            yield url


@asynccontextmanager
async def serve_unix(
    tracer: SimulatedTracer | Replay | None = None,
    *,
    path: str | os.PathLike[str],
    baud_pacing: bool = False,
    faults: Faults | None = None,
) -> AsyncIterator[str]:
    """Serve a controller on a Unix socket to any number of clients. Yield ``unix:PATH``. Remove the socket at the end.

    Raises FileExistsError if another program listens there or a file has this name, OSError if no socket can be created
    at *path*, ValueError for *faults* of a recording, NotImplementedError on Windows.
    """
    if sys.platform == "win32":
        raise NotImplementedError("Windows has no Unix sockets for asyncio: serve TCP instead")
    serve_client = _serve_client_of(tracer, faults, baud_pacing=baud_pacing)
    refuse_taken(path)
    listener = await anyio.create_unix_listener(path)
    made = MadeSocket(path)
    url = f"unix:{os.fspath(path)}"
    async with listener, _run_in_background(_serve_clients(url, [listener], serve_client)):
        try:
            yield url
        finally:
            # Blocking system calls. An await here could be cancelled, and the socket would stay.
            made.remove()


@asynccontextmanager
async def serve_pty(
    tracer: SimulatedTracer | Replay | None = None, *, baud_pacing: bool = False, faults: Faults | None = None
) -> AsyncIterator[str]:
    """Serve a controller on a new pseudo-terminal. Yield ``serial://PATH``, which opens like a serial port.

    Clients can open and close it repeatedly. Bytes that no client reads within 1 s are discarded.
    Raises NotImplementedError on Windows, ValueError for faults that need a network connection, and for those
    of a recording.
    """
    if sys.platform == "win32":
        raise NotImplementedError("Windows has no pseudo-terminals: serve TCP instead")
    if faults is not None:
        faults.check_serial()
    controller, terminal = os.openpty()
    try:
        # The server keeps the client's side open too. Otherwise reading would fail with EIO when a client closes it.
        tty.setraw(terminal)
        os.set_blocking(controller, False)
        line = _PtyLine(controller, terminal)
        port = make_port(tracer or SimulatedTracer(), faults, is_serial=True)
        async with _run_in_background(_serve_stream(port, line.receive, line.send, baud_pacing=baud_pacing)):
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
    """Answer the bytes that *receive* returns, until *receive* or *send* raises. All servers use this loop."""
    pacing = BaudPacing() if baud_pacing else None
    # The next bytes are read only after all steps: a controller handles one request at a time.
    steps = port.greet()
    while True:
        data = None
        for step in steps:
            if isinstance(step, bytes):
                if pacing is not None:
                    await anyio.sleep_until(pacing.send(len(step)))
                await send(step)
            elif isinstance(step, Wait):
                await anyio.sleep(step.seconds)
            elif isinstance(step, Idle):
                with anyio.move_on_after(step.seconds):
                    data = await receive()
                if data is not None:
                    break
            elif isinstance(step, Discard):
                with anyio.move_on_after(step.seconds):
                    await _discard_input(receive)
            elif step is Ending.HANG_UP:
                return
            else:
                await _discard_input(receive)
        if data is not None:
            pass  # received while a step was idle
        elif port.pending:
            with anyio.move_on_after(PARTIAL_REQUEST_TIMEOUT):
                data = await receive()
        else:
            data = await receive()
        if data is not None and pacing is not None:
            pacing.receive(len(data), anyio.current_time())
        steps = port.flush() if data is None else port.feed(data)


async def _discard_input(receive: Callable[[], Awaitable[bytes]]) -> NoReturn:
    """Receive and discard until *receive* raises: a server notices a disconnected client only while it reads."""
    while True:
        await receive()


def _serve_client_of(
    tracer: SimulatedTracer | Replay | None, faults: Faults | None, *, baud_pacing: bool
) -> Callable[[ByteStream], Coroutine[Any, Any, None]]:
    """Return a function that serves one client. All clients share the controller."""
    shared = tracer or SimulatedTracer()
    # Now, not when the first client connects: an error there would end the server.
    check_faults(shared, faults)

    async def serve_client(stream: ByteStream) -> None:
        # A client may disconnect at any moment, also with a reset. That must not end the task group of all clients.
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with stream:
                await _serve_stream(make_port(shared, faults), stream.receive, stream.send, baud_pacing=baud_pacing)

    return serve_client


async def _serve_clients(
    url: str, listeners: Iterable[Listener[Any]], serve_client: Callable[[ByteStream], Coroutine[Any, Any, None]]
) -> None:
    """Serve the clients of all *listeners* until cancelled."""

    async def accept(listener: Listener[Any]) -> None:
        logged = False
        next_warning = -math.inf
        while True:
            try:
                client = await listener.accept()  # type: ignore[attr-defined]  # all but MultiListener have it
            except (OSError, anyio.BrokenResourceError) as error:
                # Usually no file descriptor is free. Descriptors become free when clients disconnect, so retry;
                # anyio's own serve() would end here.
                reason = getattr(error.__cause__ or error, "strerror", None) or error
                now = anyio.current_time()
                # One warning per outage and at most one per minute: each failed attempt would fill the log.
                if not logged and now >= next_warning:
                    _log.warning("%s: cannot accept a client (%s), retrying every %g s", url, reason, _ACCEPT_RETRY)
                    logged = True
                    next_warning = now + _ACCEPT_LOG_INTERVAL
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
async def _run_in_background(serving: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run *serving* until the block ends.

    An error of *serving* is raised at the end of the block.
    """
    # A plain task instead of a task group: a test fixture may enter and leave the block in different tasks, and an
    # error in the block is raised unchanged, not inside an exception group.
    task = asyncio.create_task(serving)
    try:
        yield
    finally:
        task.cancel()
        # Shielded: if the block itself was cancelled, the server must still close its connections before it ends.
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
    if not task.cancelled():
        task.result()


class _PtyLine:
    """The controller's side of a pseudo-terminal."""

    __slots__ = ("_controller", "_may_be_unread", "_terminal")

    def __init__(self, controller: int, terminal: int) -> None:
        self._controller = controller
        self._terminal = terminal
        self._may_be_unread = False

    async def receive(self) -> bytes:
        while True:
            # Only a reply can be unread: before the first one, and after a discard, no timeout is needed.
            if self._may_be_unread:
                with anyio.move_on_after(_UNREAD_TIMEOUT) as waiting:
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
                with anyio.move_on_after(_UNREAD_TIMEOUT) as waiting:
                    await anyio.wait_writable(self._controller)
                if waiting.cancelled_caught:
                    self._discard()
        self._may_be_unread = True

    def _discard(self) -> None:
        """Discard the bytes that no client has read, so that the next client does not take them for its answer."""
        self._may_be_unread = False
        termios.tcflush(self._terminal, termios.TCIFLUSH)
