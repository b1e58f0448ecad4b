"""An asyncio protocol that records the calls of its transport."""

from __future__ import annotations

import asyncio
from typing import Any


class Recorder(asyncio.Protocol):
    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.transport: asyncio.BaseTransport | None = None
        self.called = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)
        self.called.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(("lost", exc))
        self.called.set()


async def turn() -> None:
    """Let the event loop run all callbacks that are scheduled."""
    for _ in range(3):
        await asyncio.sleep(0)
