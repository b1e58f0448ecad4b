"""A program that shares a controller, and lines on which its replies can be judged. Nothing of the code under test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

from tests.promise.stamping_controller import SYNC, Script, StampingController, TimerController, checksum, frame
from tests.promise.stamping_lines import line_of
from tracer_async import TracerClient
from tracer_async.sharing import Sharing, share

UNKNOWN = 0xB7


class Program:
    """An old program: it sends requests, and takes the next frame for the reply."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, url: str) -> Self:
        if url.startswith("unix:"):
            return cls(*await asyncio.open_unix_connection(url.removeprefix("unix:")))
        host, _, port = url.removeprefix("tcp://").rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def send(self, command: int, data: bytes = b"") -> None:
        self.writer.write(frame(command, data))

    async def reply(self, patience: float = 1.0) -> bytes | None:
        """Return the bytes of the next frame, None if none comes within *patience* seconds."""
        try:
            async with asyncio.timeout(patience):
                received = await self.reader.readexactly(9)
                received += await self.reader.readexactly(received[8] + 3)
        except TimeoutError:
            return None
        assert received[:6] == SYNC
        assert received[-1:] == b"\x7f"
        assert checksum(received[6:-1]) == 0
        return received

    async def ask(self, command: int, data: bytes = b"") -> bytes | None:
        self.send(command, data)
        return await self.reply()

    async def is_disconnected(self, patience: float = 1.0) -> bool:
        try:
            async with asyncio.timeout(patience):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    def leave(self) -> None:
        self.writer.transport.abort()


def number_of(reply: bytes | None) -> int:
    """The number of a reading of a `StampingController`."""
    assert reply is not None
    assert reply[7] == 0xA0
    return int.from_bytes(reply[9:11], "little")


class Shared(NamedTuple):
    controller: StampingController
    client: TracerClient
    sharing: Sharing
    url: str
    programs: list[Program]

    async def program(self) -> Program:
        self.programs.append(await Program.connect(self.url))
        return self.programs[-1]


@contextmanager
def timer_line(script: Script) -> Iterator[tuple[TimerController, Any]]:
    with line_of("timer", script) as line:
        assert isinstance(line.controller, TimerController)
        yield line.controller, line.url


@asynccontextmanager
async def shared(script: Script, *, client: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Shared]:
    """Share a controller on a Unix socket: it works in virtual time too."""
    settings: dict[str, Any] = {"timeout": 0.4, "retries": 1, "fence": 0.25, "backoff": (0.01, 0.05)} | (client or {})
    with timer_line(script) as (controller, url), TemporaryDirectory() as folder:
        path = Path(folder, "socket")
        async with TracerClient(url, **settings) as tracer, share(tracer, f"unix:{path}", **options) as sharing:
            programs: list[Program] = []
            try:
                yield Shared(controller, tracer, sharing, sharing.urls[0], programs)
            finally:
                for program in programs:
                    program.leave()
                    # Its transport is closed in the next iterations of the event loop.
                    await asyncio.sleep(0.001)
