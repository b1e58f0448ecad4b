"""A server program that runs for the length of a test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


@asynccontextmanager
async def running(program: str, *arguments: str, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program; kill it at the end. What it prints goes to *log*."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(program, *arguments, stdout=output, stderr=output)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def listening(port: int) -> None:
    """Wait until something listens on a port of the loopback address."""
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return
