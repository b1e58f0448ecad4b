"""Connect to the controller through a custom transport: ``python examples/own_transport.py``.

The transport factory gets a protocol factory and returns ``(transport, protocol)``, as ``loop.create_connection`` does.
This one uses the standard input and output of a program, for example ``ssh host socat - /dev/ttyUSB0,raw,b9600``. The
client calls the factory again after each lost connection.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tracer_async import TracerClient

# A program that simulates a controller: it reads requests from its input and writes replies to its output.
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
    """The input and output of a program as one transport."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._protocol = protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass on the open connection."""
        self._process: Any = transport
        self._protocol.connection_made(self)

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002  # only standard output is piped
        """Pass on the output of the program."""
        self._protocol.data_received(data)

    def process_exited(self) -> None:
        """Close the connection when the program has ended."""
        self._process.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on the end of the connection."""
        self._protocol.connection_lost(exc)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write *data* to the input of the program."""
        self._process.get_pipe_transport(0).write(data)

    def is_closing(self) -> bool:
        """Return whether the connection is closing or closed."""
        return bool(self._process.is_closing())

    def abort(self) -> None:
        """Terminate the program and close the connection."""
        self._process.close()


async def through_a_program(protocol_factory: Callable[[], Any]) -> tuple[Any, Any]:
    """Start the program and return its transport and protocol."""
    loop = asyncio.get_running_loop()
    protocol = protocol_factory()
    _, pipe = await loop.subprocess_exec(lambda: Pipe(protocol), sys.executable, "-c", SIMULATOR, stderr=None)
    return pipe, protocol


async def main() -> None:
    """Print one reading."""
    async with TracerClient(through_a_program) as tracer:
        print(f"{(await tracer.read_realtime()).battery_voltage:.2f} V through {tracer.url}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the program without a traceback
        asyncio.run(main())
