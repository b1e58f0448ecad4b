"""TCP bridges and serial ports with a controller behind them for the tests of links: working, dead and slow.

They recognize a request and a reply by their bytes. They share no code with the library.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

T = TypeVar("T")

REQUEST = bytes.fromhex("EB90EB90EB90 16A000 B1A7 7F")
REPLY = bytes.fromhex("EB90EB90EB90 00A018 DC04500D000000005904980500000029000000013A760100 D969 7F")
VOLTAGE = 12.44

LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param("uvloop", id="uvloop"),
]
BACKENDS = ["pyserial", "serialx"]
SECONDS = 20.0
"""Far longer than any operation here, and far shorter than a wait for a dead peer."""


def run(loop: Any, main: Coroutine[Any, Any, T]) -> T:
    """Run *main* in an event loop of the kind that *loop* names."""
    if loop == "uvloop":
        try:
            import uvloop
        except ImportError:
            main.close()
            pytest.skip("uvloop is not installed")
        loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(main)


class Bridge:
    """A bridge of which each connection answers every request."""

    def __init__(self, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._tls = tls
        self.port = 0
        self.url = ""
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(self._accept, self._host, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"{'tls' if self._tls else 'tcp'}://{host}:{self.port}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _accept(self) -> asyncio.Protocol:
        self.connections += 1
        return _Answering()


class _Answering(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._received = (self._received + data).split(REQUEST)
        self._transport.write(REPLY * len(requests))


@contextmanager
def black_hole(host: str = "127.0.0.1") -> Iterator[int]:
    """A port where connections are never accepted, because the listener's backlog is full."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener, socket.socket(family) as waiting:
        listener.bind((host, 0))
        listener.listen(0)
        waiting.connect(listener.getsockname())
        yield listener.getsockname()[1]


@contextmanager
def serial_port() -> Iterator[str]:
    """A pseudo-terminal with a controller, served by a thread; gives its path."""
    import tty

    controller, terminal = os.openpty()
    tty.setraw(terminal)
    path = os.ttyname(terminal)
    ended = False

    def serve() -> None:
        received = b""
        while not ended:
            *requests, received = (received + os.read(controller, 4096)).split(REQUEST)
            os.write(controller, REPLY * len(requests))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield path
    finally:
        ended = True
        os.write(terminal, b"\0")  # for the thread, which then reads it and ends
        thread.join()
        os.close(controller)
        os.close(terminal)


async def fill_output(terminal: int) -> None:
    """Fill the output queue of a pseudo-terminal whose other end is not read."""
    os.set_blocking(terminal, False)
    full = 0
    while full < 50:  # the kernel makes room again when it moves the bytes from one queue to the next
        full += 1
        with suppress(BlockingIOError):
            while os.write(terminal, bytes(8)):
                full = 0
        await asyncio.sleep(0.001)


class Names:
    """Replaces ``socket.getaddrinfo``. A look-up of an unknown name hangs."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[tuple[str, int]]] = {}
        self.hanging = 0
        """How many calls hang at the moment."""
        self._end = threading.Event()
        self._lock = threading.Lock()

    def getaddrinfo(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if host not in self.addresses:
            with self._lock:
                self.hanging += 1
            self._end.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (address, number, 0, 0) if ":" in address else (address, number),
            )
            for address, number in self.addresses[host]
        ]

    def end(self) -> None:
        """Release the calls that hang."""
        self._end.set()


def open_descriptors() -> list[str]:
    """The open descriptors of this process, if the system lists them."""
    if sys.platform != "linux":
        return []
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:  # that of the directory itself
            continue
    return sorted(found)


async def until(condition: Callable[[], bool]) -> None:
    """Poll until *condition* holds. Nothing here can notify the test."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.002)
