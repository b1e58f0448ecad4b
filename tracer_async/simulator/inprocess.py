"""A simulated controller in the same process, behind an asyncio transport, without a socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from tracer_async.simulator.device import SimulatedTracer
from tracer_async.simulator.port import QUIET, SimulatedPort

__all__ = ["open_in_process"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def open_in_process(
    protocol_factory: Callable[[], P],
    tracer: SimulatedTracer | None = None,
) -> tuple[asyncio.Transport, P]:
    """Join a protocol to a simulated controller; the counterpart of ``loop.create_connection``.

    What is written is answered in the next turn of the loop, through ``data_received`` (also for a
    ``BufferedProtocol``, which therefore must have one). The controller never hangs up by itself.
    """
    protocol = protocol_factory()
    transport = _InProcessTransport(SimulatedPort(tracer or SimulatedTracer()), protocol)
    protocol.connection_made(transport)
    return transport, protocol


class _InProcessTransport(asyncio.Transport):
    def __init__(self, port: SimulatedPort, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._protocol = protocol
        self._replies: deque[bytes] = deque()
        self._reading = True
        self._closing = False
        self._quiet: asyncio.TimerHandle | None = None

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._closing:
            return
        self._stop_waiting()
        self._reply(self._port.feed(data))
        if self._port.pending:
            self._quiet = self._loop.call_later(QUIET, self._fall_quiet)

    def _fall_quiet(self) -> None:
        self._quiet = None
        self._reply(self._port.flush())

    def _stop_waiting(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None

    def _reply(self, replies: list[bytes]) -> None:
        if replies:
            self._replies += replies
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        protocol = cast("asyncio.Protocol", self._protocol)
        # The protocol may pause, or close, with any reply that it gets.
        while self._replies and self._reading and not self._closing:
            protocol.data_received(self._replies.popleft())

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.call_soon(self._deliver)

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._stop_waiting()
            self._replies.clear()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (0, 0)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever buffered."""
