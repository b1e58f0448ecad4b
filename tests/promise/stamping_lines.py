"""Every connection from a client to a `StampingController`: the library's transports, and two custom ones."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import pytest
import trustme

from tests.promise.stamping_controller import Script, StampingController, TimerController, answer
from tracer_async import TracerClient

T = TypeVar("T")


class Line(NamedTuple):
    """A controller, and how a client reaches it."""

    controller: StampingController
    url: Any
    ssl_context: ssl.SSLContext | None = None

    def client(self, **options: Any) -> TracerClient:
        return TracerClient(self.url, ssl_context=self.ssl_context, **{"backoff": (0.01, 0.05), **options})


@contextmanager
def line_of(kind: str, script: Script = answer, *, identity: int = 0) -> Iterator[Line]:
    """Serve a controller on a line of one *kind*."""
    with ExitStack() as stack:
        if kind == "timer":
            timers = stack.enter_context(TimerController(script, identity=identity))
            yield Line(timers, _over_timers(timers))
            return
        server_context, client_context = _tls() if kind == "tls" else (None, None)
        controller = StampingController(script, identity=identity, tls=server_context)
        url: Any
        if kind in ("pyserial", "serialx"):
            url = f"{controller.open_pty()}?backend={kind}"
        elif kind == "unix":
            url = controller.listen(str(Path(stack.enter_context(TemporaryDirectory()), "socket")))
        else:
            url = controller.listen()
        port = url.rpartition(":")[2]
        if kind == "callback":
            url = _over_callback(int(port))
        elif kind == "task":
            url = _over_task(int(port))
        stack.enter_context(controller)
        yield Line(controller, url, client_context)


LINES = ["tcp", "tls", "unix", "pyserial", "serialx", "callback", "task", "timer"]
"""The last three are custom transports that do not expose a descriptor."""


def _tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@contextmanager
def all_lines(script: Callable[[], Script] = lambda: answer) -> Iterator[dict[str, Line]]:
    """Serve a controller on a line of each kind, so that one stall of the application affects all of them."""
    with ExitStack() as stack:
        yield {kind: stack.enter_context(line_of(kind, script())) for kind in LINES}


@asynccontextmanager
async def clients_of(lines: dict[str, Line], **options: Any) -> AsyncIterator[dict[str, TracerClient]]:
    async with AsyncExitStack() as stack:
        yield {kind: await stack.enter_async_context(line.client(**options)) for kind, line in lines.items()}


async def of_each(clients: dict[str, TracerClient], call: Callable[[TracerClient], Awaitable[T]]) -> dict[str, T]:
    """Make a call of each client at the same time; return the results."""
    results = await asyncio.gather(*(call(client) for client in clients.values()))
    return dict(zip(clients, results, strict=True))


# Event loops.


def _uvloop() -> asyncio.AbstractEventLoop:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


on_each_loop = pytest.mark.parametrize(
    "new_loop", [pytest.param(asyncio.new_event_loop, id="asyncio"), pytest.param(_uvloop, id="uvloop")]
)

NewLoop = Callable[[], asyncio.AbstractEventLoop]


def run(new_loop: NewLoop, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run *main* on a new event loop; fail after 20 s."""

    async def limited() -> T:
        async with asyncio.timeout(20):
            return await main()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(limited())


# Custom transports.


class _OwnTransport(asyncio.Transport):
    """Uses a socket that it does not expose; reads 512 bytes in one turn of the loop."""

    def __init__(self, sock: socket.socket, protocol: Any) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._protocol = protocol
        self._closing = False
        self._loop.add_reader(sock, self._read)

    def _read(self) -> None:
        data = b""
        with suppress(OSError):
            data = self._sock.recv(512)
        if data:
            self._protocol.data_received(data)
        else:
            self.abort()

    def write(self, data: Any) -> None:
        self._sock.send(data)

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self._closing


def _over_callback(port: int) -> Any:
    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        made = protocol()
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        transport = _OwnTransport(sock, made)
        made.connection_made(transport)
        return transport, made

    return connect


class _TaskTransport(asyncio.Transport):
    """Over asyncio's streams: a task takes what they have read, in a later turn of the loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: Any) -> None:
        super().__init__()
        self._reader = reader
        self._writer = writer
        self._protocol = protocol
        self._closing = False
        self._task = asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        with suppress(OSError):
            while data := await self._reader.read(512):
                self._protocol.data_received(data)
        self.abort()
        self._protocol.connection_lost(None)

    def write(self, data: Any) -> None:
        self._writer.write(data)

    def abort(self) -> None:
        self._closing = True
        self._writer.transport.abort()

    def is_closing(self) -> bool:
        return self._closing


def _over_task(port: int) -> Any:
    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        made = protocol()
        transport = _TaskTransport(*await asyncio.open_connection("127.0.0.1", port), made)
        made.connection_made(transport)
        return transport, made

    return connect


class _TimerTransport(asyncio.Transport):
    def __init__(self, controller: TimerController, protocol: Any) -> None:
        super().__init__()
        self._controller = controller
        self._protocol = protocol
        self._closing = False
        controller.attach(self._deliver)

    def _deliver(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)

    def write(self, data: Any) -> None:
        self._controller.receive(data)

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self._closing


def _over_timers(controller: TimerController) -> Any:
    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        made = protocol()
        transport = _TimerTransport(controller, made)
        made.connection_made(transport)
        return transport, made

    return connect


# Descriptors.


@contextmanager
def high_descriptors() -> Iterator[None]:
    """Take all descriptors up to 1023, so that those opened next cannot be given to select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"a process may have {hard} descriptors only")
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        while not taken or taken[-1] < 1100:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
