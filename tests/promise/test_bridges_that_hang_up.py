"""A bridge that closes each connection early. Every request ends, and a command that was not sent is reported so.

The bridges are TCP servers. They recognize a request by its bytes, and keep all bytes that they receive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.promise.bridges import LOOPS, REPLY, REQUEST, SECONDS, VOLTAGE, run
from tests.promise.settings import SETTINGS
from tracer_async import (
    LinkTimeoutError,
    LoadState,
    ManualControl,
    TracerClient,
)
from tracer_async import sync as blocking

QUICK: dict[str, Any] = {"start_offline": True, "backoff": (0.02, 0.05), "fence": 0.1}
COMMANDS: dict[str, Callable[[TracerClient], Coroutine[Any, Any, object]]] = {
    "set_load": lambda tracer: tracer.set_load(True),
    "write_settings": lambda tracer: tracer.write_settings(SETTINGS),
    "execute": lambda tracer: tracer.execute(ManualControl(LoadState.ON)),
}


class Bridge(asyncio.Protocol):
    """One connection. It ends with the first request, after the reply or without one."""

    def __init__(self, received: list[bytes], answers: bool) -> None:
        self._received = received
        self._answers = answers
        self._pending = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received.append(data)
        self._pending += data
        if self._pending.endswith(REQUEST):
            if self._answers:
                self.transport.write(REPLY)
            self.transport.close()


@asynccontextmanager
async def bridge(received: list[bytes], answers: bool = True) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Bridge(received, answers), "127.0.0.1", 0)
    async with server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def requests_of(received: list[bytes]) -> list[bytes]:
    """The requests without the bytes before their sync bytes."""
    sync = REQUEST[:6]
    return [sync + part for part in b"".join(received).split(sync)[1:]]


def only_readings(received: list[bytes]) -> bool:
    return all(request.startswith(REQUEST) for request in requests_of(received))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("answers", [True, False], ids=["after the reply", "before the reply"])
def test_a_command_ends_if_the_bridge_hangs_up_at_each_request(loop: Any, command: str, answers: bool) -> None:
    received: list[bytes] = []

    async def main() -> None:
        async with asyncio.timeout(SECONDS), bridge(received, answers) as url, TracerClient(url, **QUICK) as tracer:
            with pytest.raises(LinkTimeoutError, match="connections were lost before the request could be sent"):
                await COMMANDS[command](tracer)

    run(loop, main())
    assert received
    assert only_readings(received), "the command was sent"


def test_requests_behind_a_command_that_cannot_be_sent_end_and_readings_are_answered() -> None:
    received: list[bytes] = []

    async def main() -> list[Any]:
        async with asyncio.timeout(SECONDS), bridge(received) as url, TracerClient(url, **QUICK) as tracer:
            calls = [call(tracer) for call in COMMANDS.values()]
            return await asyncio.gather(*calls, tracer.read_realtime(), return_exceptions=True)

    *commands, reading = run(asyncio.new_event_loop, main())
    assert [type(outcome) for outcome in commands] == [LinkTimeoutError] * len(COMMANDS)
    assert reading.battery_voltage == VOLTAGE
    assert only_readings(received)


def test_a_command_of_the_blocking_client_ends_if_the_bridge_hangs_up_after_each_reply() -> None:
    received: list[bytes] = []

    async def main() -> None:
        def switch(url: str) -> None:
            with blocking.TracerClient(url, **QUICK) as tracer, pytest.raises(LinkTimeoutError, match="lost before"):
                tracer.set_load(True)

        async with asyncio.timeout(SECONDS), bridge(received) as url:
            await asyncio.to_thread(switch, url)

    run(asyncio.new_event_loop, main())
    assert only_readings(received)
