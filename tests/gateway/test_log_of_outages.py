"""What the log says about a controller that goes away and comes back."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.gateway.peer_process import free_port
from tests.peer import realtime
from tracer_async.gateway.config import ControllerConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.hub import Hub

PATIENCE = 60.0


class Bridge:
    """A TCP server that can be stopped and started again. The controller behind it answers if `is_answering`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.is_answering = True
        self._connections: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.append(writer)
        while await reader.read(4096):
            if self.is_answering:
                writer.write(realtime())
        writer.close()


@asynccontextmanager
async def polling(bridge: Bridge) -> AsyncIterator[None]:
    # Nothing is read from the file or written to it.
    hub = Hub(EnergyLedger(Path("unused"), zone=None, flush_seconds=60))
    await hub.apply({"roof": ControllerConfig(url=f"127.0.0.1:{bridge.port}", interval=0.2, timeout=0.2, retries=0)})
    task = asyncio.create_task(hub.run())
    yield
    await hub.aclose()
    await task


@pytest.mark.slow
async def test_each_line_says_whether_the_connection_or_the_controller_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def until(*expected: str) -> None:
        """Wait for so many lines, and compare all lines."""
        async with asyncio.timeout(PATIENCE):
            while len(lines := [f"{item.levelname} {item.getMessage()}" for item in caplog.records]) < len(expected):
                await asyncio.sleep(0.01)
        for line, pattern in zip(lines, expected, strict=True):
            assert re.fullmatch(pattern.format(url=f"tcp://127.0.0.1:{bridge.port}"), line), line

    caplog.set_level(logging.INFO, "tracer_async")
    bridge = Bridge()
    await bridge.start()
    async with polling(bridge):
        lines = ["INFO roof is online"]
        await until(*lines)
        await bridge.stop()
        # The recovery has the level of the loss: a log of warnings has both.
        lines += [
            r"WARNING {url}: connection lost \(.*\), reconnecting in .* s",
            r"WARNING roof is offline: {url}: no connection within \d+ s; .*",
        ]
        await until(*lines)
        bridge.is_answering = False
        await bridge.start()
        lines += ["WARNING {url}: connection established", "WARNING roof is offline: {url}: no answer to command A0.*"]
        await until(*lines)
        bridge.is_answering = True
        lines += ["WARNING roof is online"]
        await until(*lines)
    await bridge.stop()
