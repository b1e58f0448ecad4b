"""A command that its transport still holds, because the other side takes no bytes, is not sent after it has failed."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.promise.bridges import BACKENDS, LOOPS, SECONDS, fill_output, run
from tests.promise.logging_controller import READ, LoggingController, encode, take_frame
from tests.promise.settings import CALLS
from tracer_async import TracerClient, TracerError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")

loops = pytest.mark.parametrize("loop", LOOPS)

# No other rule gives up a link: that would need 1,000 timeouts.
OPTIONS: dict[str, Any] = {
    "timeout": 0.1,
    "retries": 0,
    "fence": 0.0,
    "max_timeouts": 1000,
    "backoff": (0.01, 0.01),
}


class Line:
    """A pseudo-terminal with a controller. It can stop taking bytes, as an adapter with flow control does."""

    def __init__(self, master: int, terminal: int) -> None:
        self._master = master
        self._terminal = terminal
        self.path = os.ttyname(terminal)
        self.controller = LoggingController()
        self.controller.attach(self._write)

    def _write(self, data: bytes) -> None:
        os.write(self._master, data)

    def take(self) -> None:
        """Take bytes, all that wait and all that come."""
        asyncio.get_running_loop().add_reader(self._master, self._receive)

    def _receive(self) -> None:
        self.controller.receive(os.read(self._master, 65536))

    async def block(self) -> None:
        """Take no more bytes, and fill the output queue."""
        asyncio.get_running_loop().remove_reader(self._master)
        await fill_output(self._terminal)


@contextmanager
def open_line() -> Iterator[Line]:
    master, terminal = os.openpty()
    tty.setraw(terminal)
    try:
        yield Line(master, terminal)
    finally:
        os.close(master)
        os.close(terminal)


async def read_soon(tracer: TracerClient) -> None:
    """Wait until a reading succeeds."""
    async with asyncio.timeout(SECONDS):
        while True:
            with suppress(TracerError):
                await tracer.read_realtime()
                return


@loops
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("call", "code"), CALLS)
def test_a_command_that_failed_while_the_adapter_took_no_bytes_is_not_sent_later(
    loop: Any, backend: str, call: Callable[[TracerClient], Any], code: int
) -> None:
    async def main(line: Line) -> None:
        async with TracerClient(f"serial://{line.path}?backend={backend}", **OPTIONS) as tracer:
            line.take()
            await read_soon(tracer)
            await line.block()
            with pytest.raises(TracerError):
                await call(tracer)
            line.take()
            await read_soon(tracer)
            assert not line.controller.sent(code)
            await call(tracer)
            assert len(line.controller.sent(code)) == 1

    with open_line() as line:
        run(loop, main(line))


@loops
@pytest.mark.parametrize(("call", "code"), CALLS)
def test_a_command_that_failed_while_a_program_did_not_read_its_unix_socket_is_not_sent_later(
    loop: Any, call: Callable[[TracerClient], Any], code: int, tmp_path: Path
) -> None:
    async def connect(make_protocol: Callable[[], Any]) -> tuple[Any, Any]:
        sock = socket.socket(socket.AF_UNIX)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel makes it a few requests
        sock.connect(str(tmp_path / "socket"))
        return await asyncio.get_running_loop().create_unix_connection(make_protocol, sock=sock)

    async def main(listener: socket.socket) -> None:
        running = asyncio.get_running_loop()
        async with asyncio.timeout(SECONDS), TracerClient(connect, **OPTIONS) as tracer:
            program, _ = await running.sock_accept(listener)
            with program:
                reading = asyncio.create_task(tracer.read_realtime())
                await running.sock_recv(program, 4096)
                await running.sock_sendall(program, encode(0, READ, bytes(24)))
                await reading
                for _ in range(20):
                    with suppress(TracerError):
                        await tracer.read_realtime()
                with pytest.raises(TracerError):
                    await call(tracer)
                # The link is given up: otherwise this would time out.
                received = bytearray()
                while chunk := await running.sock_recv(program, 65536):
                    received += chunk
            assert received
            while frame := take_frame(received):
                assert frame[1] != code

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        listener.setblocking(False)
        run(loop, main(listener))
