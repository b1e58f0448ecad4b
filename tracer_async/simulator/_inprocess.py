"""A simulated controller in the same process: an asyncio transport without a socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

from tracer_async.simulator._faulty_port import make_port
from tracer_async.simulator._port import PARTIAL_REQUEST_TIMEOUT, Discard, Ending, Idle, Port, Step, Wait
from tracer_async.simulator._replay import Replay
from tracer_async.simulator.device import SimulatedTracer
from tracer_async.simulator.faults import Faults

__all__ = ["open_in_process"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def open_in_process(
    protocol_factory: Callable[[], P],
    tracer: SimulatedTracer | Replay | None = None,
    *,
    faults: Faults | None = None,
) -> tuple[asyncio.Transport, P]:
    """Connect a protocol to a simulated controller, or to a recording. The counterpart of ``loop.create_connection``.

    Replies arrive in the next iteration of the event loop, through ``data_received``. A ``BufferedProtocol`` needs this
    method too. The controller closes the connection only if one of the *faults* does. Raises ValueError for *faults* of
    a recording.
    """
    protocol = protocol_factory()
    transport = _InProcessTransport(make_port(tracer or SimulatedTracer(), faults), protocol)
    protocol.connection_made(transport)
    transport.greet()
    return transport, protocol


class _InProcessTransport(asyncio.Transport):
    def __init__(self, port: Port, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._protocol = protocol
        # None closes the connection. It is queued like a reply, so that all earlier replies are delivered first.
        self._replies: deque[bytes | None] = deque()
        self._reading = True
        self._closing = False
        self._partial_request_timer: asyncio.TimerHandle | None = None
        # The remaining steps of the port, the timer of the current step, and the bytes written during that step.
        self._steps: Iterator[Step] = iter(())
        self._step_timer: asyncio.TimerHandle | None = None
        self._unprocessed: deque[bytes] = deque()
        self._discarding = False
        # Whether the current step ends when bytes are written.
        self._idle = False

    def greet(self) -> None:
        """Tell the port that a client has connected."""
        self._execute(self._port.greet())

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._closing or self._discarding:
            return
        if self._step_timer is not None and self._idle:
            self._step_timer.cancel()
            self._step_timer = None
        if self._step_timer is not None:
            # A copy: the caller may reuse the buffer after write() has returned.
            self._unprocessed.append(bytes(data))
            return
        self._stop_partial_request_timer()
        self._execute(self._port.feed(data))

    def _discard_partial_request(self) -> None:
        self._partial_request_timer = None
        self._execute(self._port.flush())

    def _stop_partial_request_timer(self) -> None:
        if self._partial_request_timer is not None:
            self._partial_request_timer.cancel()
            self._partial_request_timer = None

    def _execute(self, steps: Iterable[Step]) -> None:
        self._steps = iter(steps)
        self._continue()

    def _continue(self) -> None:
        """Execute steps until one needs time."""
        for step in self._steps:
            if isinstance(step, bytes):
                self._replies.append(step)
            elif isinstance(step, Idle) and self._unprocessed:
                self._steps = iter(())
                break
            elif isinstance(step, Wait | Idle):
                self._idle = isinstance(step, Idle)
                self._step_timer = self._loop.call_later(step.seconds, self._resume)
                break
            else:
                self._discarding = True
                self._unprocessed.clear()
                self._idle = False
                if isinstance(step, Discard):
                    self._step_timer = self._loop.call_later(step.seconds, self._resume)
                elif step is Ending.HANG_UP:
                    self._replies.append(None)
                break
        # Never from within write(): no real transport calls its protocol while the protocol is still writing.
        if self._replies:
            self._loop.call_soon(self._deliver)
        if self._port.pending and self._step_timer is None and not self._discarding:
            self._partial_request_timer = self._loop.call_later(PARTIAL_REQUEST_TIMEOUT, self._discard_partial_request)

    def _resume(self) -> None:
        self._step_timer = None
        self._discarding = False
        self._continue()
        # Stop as soon as a request starts another delay: the bytes after it wait for that one.
        while self._unprocessed and self._step_timer is None:
            self._stop_partial_request_timer()
            self._execute(self._port.feed(self._unprocessed.popleft()))

    def _deliver(self) -> None:
        protocol = cast("asyncio.Protocol", self._protocol)
        # Check before each reply: the protocol may pause reading or close the transport in data_received.
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
            self._stop_partial_request_timer()
            if self._step_timer is not None:
                self._step_timer.cancel()
                self._step_timer = None
            # Never directly: asyncio protocols expect connection_lost after close() has returned.
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
        """Do nothing: the write buffer is always empty."""
