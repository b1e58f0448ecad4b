"""Reach the controller through a transport that the library does not know: ``python examples/own_transport.py``.

A factory is called with a protocol factory and returns ``(transport, protocol)``, as ``loop.create_connection`` does.
This one speaks to a program's standard input and output; ``ssh host socat - /dev/ttyUSB0,raw,b9600`` would be such a
program. The client calls the factory again whenever the link was lost.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from tracer_async import TracerClient

# A controller that is a program: it reads requests from its input and writes replies to its output.
SIMULATOR = """
import os
from tracer_async.protocol import Frame, FrameDecoder
from tracer_async.simulator import SimulatedTracer
controller, decoder = SimulatedTracer(), FrameDecoder()
while data := os.read(0, 4096):
    for frame in decoder.feed(data):
        if isinstance(frame, Frame) and (reply := controller.answer(frame)):
            os.write(1, reply)
"""


class Pipe(asyncio.SubprocessProtocol, asyncio.Transport):
    """A program's input and output as one transport."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._protocol = protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand over the open link."""
        self._process: Any = transport
        self._protocol.connection_made(self)

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002  # there is one
        """Hand over what the program wrote."""
        self._protocol.data_received(data)

    def process_exited(self) -> None:
        """End the program's link with the program."""
        self._process.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand over the end of the link."""
        self._protocol.connection_lost(exc)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Give *data* to the program."""
        self._process.get_pipe_transport(0).write(data)

    def is_closing(self) -> bool:
        """Whether the link is closing, or closed."""
        return bool(self._process.is_closing())

    def abort(self) -> None:
        """End the program, and with it the link."""
        self._process.close()


async def through_a_program(protocol_factory: Callable[[], Any]) -> tuple[Any, Any]:
    """Start the program and return its transport and protocol."""
    loop = asyncio.get_running_loop()
    protocol = protocol_factory()
    _, pipe = await loop.subprocess_exec(lambda: Pipe(protocol), sys.executable, "-c", SIMULATOR, stderr=None)
    return pipe, protocol


async def main() -> None:
    """Read once through the program."""
    async with TracerClient(through_a_program) as tracer:
        print(f"{(await tracer.read_realtime()).battery_voltage:.2f} V through {tracer.url}")


if __name__ == "__main__":
    asyncio.run(main())
