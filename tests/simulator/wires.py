"""Clients of a simulated controller that do not use the library: a socket and a pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
import sys
from urllib.parse import urlsplit

import pytest

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals and no Unix sockets")


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.startswith("unix:"):
        return await asyncio.open_unix_connection(url.removeprefix("unix:"))
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


class Terminal:
    """A client of a pseudo-terminal. It does not change the terminal modes."""

    def __init__(self, url: str) -> None:
        self.fd = os.open(url.removeprefix("serial://"), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def write(self, data: bytes) -> None:
        assert os.write(self.fd, data) == len(data)

    async def read(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            received += await self.read_some(size - len(received))
        return received

    async def read_some(self, size: int) -> bytes:
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.fd, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self.fd)
        return os.read(self.fd, size)

    def is_silent(self) -> bool:
        try:
            return not os.read(self.fd, 1)
        except BlockingIOError:
            return True

    def close(self) -> None:
        os.close(self.fd)
