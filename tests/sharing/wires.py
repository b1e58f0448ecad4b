"""Wires to the ports of a listener: pseudo-terminals whose bytes the test writes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator

import pytest

from tests.promise.stamping_controller import SYNC, checksum
from tracer_async.sharing import ObservedExchange

if sys.platform != "win32":
    import termios
    import tty


class Wire:
    """The wire that a listener's port is connected to."""

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        os.set_blocking(self._master, False)
        # Another program has used the port before: it does not echo.
        tty.setraw(self._slave)
        self.url = os.ttyname(self._slave)

    def carry(self, data: bytes) -> None:
        assert os.write(self._master, data) == len(data)

    def written(self) -> int:
        """Number of bytes that the listener has sent."""
        try:
            return len(os.read(self._master, 4096))
        except BlockingIOError:
            return 0

    def mode(self) -> list[object]:
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def wires() -> Iterator[list[Wire]]:
    made = [Wire(), Wire()]
    yield made
    for wire in made:
        assert wire.written() == 0
        wire.close()


def request(command: int, data: bytes = b"") -> bytes:
    body = bytes((0x16, command, len(data))) + data
    return b"\xaa\x55" * 3 + SYNC + body + checksum(body).to_bytes(2, "big") + b"\x7f"


async def next_of(exchanges: object) -> ObservedExchange:
    async with asyncio.timeout(10):
        found: ObservedExchange = await anext(exchanges)  # type: ignore[call-overload]
        return found
