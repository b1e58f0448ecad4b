"""A simulated controller behind each kind of transport."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tracer_async.simulator import SimulatedTracer, open_in_process, serve_pty, serve_tcp, serve_unix
from tracer_async.transport import TransportFactory

Require = Callable[[str], str]


@dataclass
class Link:
    """The address of a simulated controller, and the controller."""

    url: str | TransportFactory
    tracer: SimulatedTracer


@asynccontextmanager
async def in_process(require: Require) -> AsyncIterator[Link]:
    tracer = SimulatedTracer()
    yield Link(lambda protocol: open_in_process(protocol, tracer), tracer)


@asynccontextmanager
async def tcp(require: Require) -> AsyncIterator[Link]:
    tracer = SimulatedTracer()
    async with serve_tcp(tracer) as url:
        yield Link(url, tracer)


@asynccontextmanager
async def unix(require: Require) -> AsyncIterator[Link]:
    tracer = SimulatedTracer()
    with TemporaryDirectory() as folder:
        async with serve_unix(tracer, path=f"{folder}/socket") as url:
            yield Link(url, tracer)


def pty(backend: str) -> Callable[[Require], AbstractAsyncContextManager[Link]]:
    @asynccontextmanager
    async def serve(require: Require) -> AsyncIterator[Link]:
        tracer = SimulatedTracer()
        async with serve_pty(tracer) as url:
            yield Link(f"{url}?backend={backend}", tracer)

    return serve


def socat(backend: str) -> Callable[[Require], AbstractAsyncContextManager[Link]]:
    """A pty that socat connects to the TCP port of the simulator, for programs that support only serial ports."""

    @asynccontextmanager
    async def serve(require: Require) -> AsyncIterator[Link]:
        program = require("socat")
        tracer = SimulatedTracer()
        with TemporaryDirectory() as folder:
            async with serve_tcp(tracer) as url:
                port = Path(folder, "port")
                process = await asyncio.create_subprocess_exec(
                    program,
                    "-d",
                    "-d",
                    f"PTY,link={port},raw,echo=0",
                    "TCP:" + url.removeprefix("tcp://"),
                    stderr=asyncio.subprocess.PIPE,
                )
                try:
                    assert process.stderr is not None
                    while b"starting data transfer loop" not in await process.stderr.readline():
                        assert process.returncode is None
                    yield Link(f"serial://{port}?backend={backend}", tracer)
                finally:
                    process.terminate()
                    await process.communicate()

    return serve


posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no ptys and no Unix sockets in asyncio")

LINKS = [
    pytest.param(in_process, id="in-process"),
    pytest.param(tcp, id="tcp"),
    pytest.param(unix, id="unix", marks=posix),
    pytest.param(pty("pyserial"), id="pty-pyserial", marks=posix),
    pytest.param(pty("serialx"), id="pty-serialx", marks=[posix, pytest.mark.slow]),
    pytest.param(socat("pyserial"), id="socat-pyserial", marks=[posix, pytest.mark.slow]),
    pytest.param(socat("serialx"), id="socat-serialx", marks=[posix, pytest.mark.slow]),
]
