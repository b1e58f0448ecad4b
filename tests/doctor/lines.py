"""Peers with one defect each, on TCP and on pseudo-terminals."""

from __future__ import annotations

import asyncio
import os
import socket
import termios
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.doctor.uart import through
from tracer_async.doctor import Finding, Severity
from tracer_async.protocol import Frame, FrameDecoder
from tracer_async.simulator import SimulatedTracer

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def complaints(findings: list[Finding]) -> list[str]:
    """The identifiers of warnings and errors, in their order."""
    return [found.id for found in findings if found.severity in (Severity.WARNING, Severity.ERROR)]


@asynccontextmanager
async def bridge(serve: Serve, **options: object) -> AsyncIterator[str]:
    """A TCP server. Yields its URL."""
    clients: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        clients.add(task)
        with suppress(ConnectionError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()
        clients.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, **options)  # type: ignore[arg-type]
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in clients:
            task.cancel()
        await server.wait_closed()


def requests(decoder: FrameDecoder, data: bytes) -> list[Frame]:
    return [event for event in decoder.feed(data) if isinstance(event, Frame)]


class SerialDevice:
    """A controller on a pseudo-terminal, at its own baud rate. The bytes pass a simulated line in both directions.

    The kernel passes bytes on whatever the baud rate is. So this reads the rate that the other side has set, and
    damages the bytes as a real line would.
    """

    def __init__(self, answer: Callable[[bytes], bytes], rate: int = 9600, *, inverted: bool = False) -> None:
        self._answer = answer
        self._rate = rate
        self._inverted = inverted
        self.received = b""
        """The bytes that were sent to the device, at any rate."""

    def __enter__(self) -> str:
        self._controller, self._terminal = os.openpty()
        tty.setraw(self._terminal)
        os.set_blocking(self._controller, False)
        asyncio.get_running_loop().add_reader(self._controller, self._read)
        return f"serial://{os.ttyname(self._terminal)}"

    def __exit__(self, *exc_info: object) -> None:
        asyncio.get_running_loop().remove_reader(self._controller)
        os.close(self._controller)
        os.close(self._terminal)

    def _host_rate(self) -> int:
        speed = termios.tcgetattr(self._terminal)[5]
        return next(
            int(name[1:])
            for name in dir(termios)
            if name[:1] == "B" and name[1:].isdigit() and getattr(termios, name) == speed
        )

    def _read(self) -> None:
        data = os.read(self._controller, 4096)
        self.received += data
        self.send(self._answer(through(data, self._host_rate(), self._rate)))

    def send(self, data: bytes) -> None:
        """Send *data* at the device's rate."""
        if data:
            os.write(self._controller, through(data, self._rate, self._host_rate(), inverted=self._inverted))


def controller() -> Callable[[bytes], bytes]:
    """The answers of a simulated controller to the bytes that it receives."""
    tracer, decoder = SimulatedTracer(), FrameDecoder()

    def answer(data: bytes) -> bytes:
        return b"".join(tracer.answer(frame) or b"" for frame in requests(decoder, data))

    return answer


@asynccontextmanager
async def ser2net(program: str, folder: Path, device: str, accepter: str = "tcp", **options: str) -> AsyncIterator[str]:
    """A ser2net process in front of a serial port. Yields its URL. It may not listen yet."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    lines = "".join(f"    {name.replace('_', '-')}: {value}\n" for name, value in options.items())
    config = folder / "ser2net.yaml"
    config.write_text(
        f"connection: &tracer\n  accepter: {accepter},127.0.0.1,{port}\n"
        f"  connector: serialdev,{device.removeprefix('serial://')},9600n81,local\n  options:\n{lines or '    {}'}\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(program, "-n", "-c", str(config), "-P", str(config.with_suffix(".pid"))), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()
