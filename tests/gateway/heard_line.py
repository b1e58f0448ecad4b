"""A meter that reads a simulated controller, and a bridge on which a gateway hears both, for tests of listening."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tracer_async import TracerClient
from tracer_async.simulator import SimulatedTracer, serve_tcp


class HeardLine:
    """The line between a meter and a controller. Whoever connects to `url` receives a copy of all bytes."""

    def __init__(self, controller: str) -> None:
        host, _, port = controller.removeprefix("tcp://").rpartition(":")
        self._controller = host, int(port)
        self._listeners: list[asyncio.StreamWriter] = []
        self._connected = asyncio.Event()
        self._left = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._bridge: asyncio.Server | None = None
        self.written = bytearray()
        """What the listeners have sent."""
        self.url = ""
        """The bridge."""
        self.meter_url = ""
        """Where the meter reads the controller."""

    @asynccontextmanager
    async def served(self) -> AsyncIterator[HeardLine]:
        line = await asyncio.start_server(self._serve_meter, "127.0.0.1", 0)
        self._bridge = await asyncio.start_server(self._serve_listener, "127.0.0.1", 0)
        self.meter_url = f"127.0.0.1:{line.sockets[0].getsockname()[1]}"
        self.url = f"127.0.0.1:{self._bridge.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            line.close()
            self._bridge.close()
            for writer in self._writers:
                writer.transport.abort()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def heard(self) -> None:
        """Wait until somebody listens."""
        async with asyncio.timeout(20):
            await self._connected.wait()

    async def left(self) -> None:
        """Wait until nobody listens any more."""
        async with asyncio.timeout(20):
            await self._left.wait()

    def listeners(self) -> int:
        return len(self._listeners)

    async def _serve_meter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(*self._controller)
        self._writers += [writer, there[1]]
        for source, sink in ((reader, there[1]), (there[0], writer)):
            self._tasks.add(asyncio.create_task(self._carry(source, sink)))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            for listener in self._listeners:
                listener.write(data)
            writer.write(data)

    async def _serve_listener(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._listeners.append(writer)
        self._left.clear()
        self._connected.set()
        self._tasks.add(asyncio.create_task(self._note(reader, writer)))

    async def _note(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                self.written += data
        except ConnectionError:
            pass
        finally:
            self._listeners.remove(writer)
            if not self._listeners:
                self._connected.clear()
                self._left.set()


@asynccontextmanager
async def heard_line(device: SimulatedTracer | None = None) -> AsyncIterator[tuple[HeardLine, TracerClient]]:
    """Give the line, and the meter, which reads when the test tells it to."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve_tcp(device or SimulatedTracer()))
        line = await stack.enter_async_context(HeardLine(url).served())
        yield line, await stack.enter_async_context(TracerClient(line.meter_url))
        assert line.written == b""
