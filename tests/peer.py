"""A controller whose role the test takes: the test receives each request and sends each reply."""

from __future__ import annotations

import asyncio
from typing import Self

from tracer_async.protocol import BatteryType, ControlSettings, Frame, FrameDecoder, LoadMode, RealtimeData

# The data of a reply in a capture.
READING = RealtimeData.from_bytes(bytes.fromhex("DC04500D000000005904980500000029000000013A760100"))

SETTINGS = ControlSettings(
    battery_type=BatteryType.SEALED,
    battery_capacity=100,
    temperature_compensation=3,
    load_mode_1=LoadMode.MANUAL,
    load_mode_2=LoadMode.OFF,
)


def realtime(data: RealtimeData = READING) -> bytes:
    """The reply to A0."""
    return Frame(0x00, 0xA0, data.to_bytes()).encode(start_up=False)


def load(state: int) -> bytes:
    """The reply to AA."""
    return Frame(0x00, 0xAA, bytes([state])).encode(start_up=False)


class Peer:
    """A TCP server for one connection at a time."""

    def __init__(self) -> None:
        self._requests: asyncio.Queue[Frame] = asyncio.Queue()
        self._connections: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self._writer: asyncio.StreamWriter | None = None
        self.url = ""
        self.connections = 0
        self.on_connect = b""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.connections += 1
        self._connections.put_nowait(writer)
        decoder = FrameDecoder()
        writer.write(self.on_connect)
        try:
            while chunk := await reader.read(4096):
                for event in decoder.feed(chunk):
                    if isinstance(event, Frame):
                        self._requests.put_nowait(event)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def connection(self) -> None:
        """Wait for the next connection."""
        await self._connections.get()

    async def request(self, command: int | None = None) -> Frame:
        """Wait for the next request."""
        frame = await self._requests.get()
        assert command is None or frame.command == command
        return frame

    @property
    def idle(self) -> bool:
        """Whether no request is waiting to be taken."""
        return self._requests.empty()

    def send(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    def hang_up(self) -> None:
        """Reset the connection, as a bridge does when it restarts."""
        if self._writer is not None:
            self._writer.transport.abort()
