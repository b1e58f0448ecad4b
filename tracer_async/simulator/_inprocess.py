"""A simulated controller in the same process, behind an asyncio transport, without a socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

from tracer_async.simulator._faulty_port import port_of
from tracer_async.simulator._port import QUIET, Ending, Lose, Port, Step, Wait
from tracer_async.simulator.device import SimulatedTracer
from tracer_async.simulator.faults import Faults

__all__ = ["open_in_process"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def open_in_process(
    protocol_factory: Callable[[], P],
    tracer: SimulatedTracer | None = None,
    *,
    faults: Faults | None = None,
) -> tuple[asyncio.Transport, P]:
    """Join a protocol to a simulated controller; the counterpart of ``loop.create_connection``.

    What is written is answered in the next turn of the loop, through ``data_received`` (also for a
    ``BufferedProtocol``, which therefore must have one). The controller never hangs up by itself, unless one of the
    *faults* does.
    """
    protocol = protocol_factory()
    transport = _InProcessTransport(port_of(tracer or SimulatedTracer(), faults), protocol)
    protocol.connection_made(transport)
    transport.greet()
    return transport, protocol


class _InProcessTransport(asyncio.Transport):
    def __init__(self, port: Port, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._protocol = protocol
        # None hangs up.
        self._replies: deque[bytes | None] = deque()
        self._reading = True
        self._closing = False
        self._quiet: asyncio.TimerHandle | None = None
        # The steps that the port wants taken yet, and what was written while one of them takes its time.
        self._steps: Iterator[Step] = iter(())
        self._busy: asyncio.TimerHandle | None = None
        self._unread: deque[bytes] = deque()
        self._deaf = False

    def greet(self) -> None:
        """Tell the port that the protocol has come."""
        self._take(self._port.greet())

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._closing or self._deaf:
            return
        if self._busy is not None:
            self._unread.append(bytes(data))
            return
        self._stop_waiting()
        self._take(self._port.feed(data))

    def _fall_quiet(self) -> None:
        self._quiet = None
        self._take(self._port.flush())

    def _stop_waiting(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None

    def _take(self, steps: Iterable[Step]) -> None:
        self._steps = iter(steps)
        self._go_on()

    def _go_on(self) -> None:
        """Take steps until one takes its time."""
        for step in self._steps:
            if isinstance(step, bytes):
                self._replies.append(step)
            elif isinstance(step, Wait):
                self._busy = self._loop.call_later(step.seconds, self._resume)
                break
            else:
                self._deaf = True
                self._unread.clear()
                if isinstance(step, Lose):
                    self._busy = self._loop.call_later(step.seconds, self._resume)
                elif step is Ending.HANG_UP:
                    self._replies.append(None)
                break
        if self._replies:
            self._loop.call_soon(self._deliver)
        if self._port.pending and self._busy is None and not self._deaf:
            self._quiet = self._loop.call_later(QUIET, self._fall_quiet)

    def _resume(self) -> None:
        self._busy = None
        self._deaf = False
        self._go_on()
        while self._unread and self._busy is None:
            self._stop_waiting()
            self._take(self._port.feed(self._unread.popleft()))

    def _deliver(self) -> None:
        protocol = cast("asyncio.Protocol", self._protocol)
        # The protocol may pause, or close, with any reply that it gets.
        while self._replies and self._reading and not self._closing:
            reply = self._replies.popleft()
            if reply is None:
                self.close()
            else:
                protocol.data_received(reply)

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
            if self._busy is not None:
                self._busy.cancel()
                self._busy = None
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
