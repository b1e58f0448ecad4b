"""What a line sends to: a client's TCP connection, or a pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
import tty
from contextlib import suppress

from stress.lines import Line, Site

__all__ = ["PtyWire", "TcpWire"]


class TcpWire(asyncio.Protocol):
    """A client's connection to a bridge."""

    def __init__(self, line: Line, site: Site) -> None:
        self._line = line
        self._site = site
        self._transport: asyncio.Transport | None = None
        self.deaf = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._site.cut:
            transport.abort()
            return
        for step in self._line.greet():
            if isinstance(step, bytes):
                transport.write(step)
            else:
                transport.close()
                return
        self._site.wires.add(self)
        self._line.connect(self)
        if self._site.blocked_since is not None:
            self.pause()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._line.receive(data, self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # any reason
        """See `asyncio.BaseProtocol`."""
        self._transport = None
        self._site.wires.discard(self)
        self._line.disconnect(self)

    def send(self, data: bytes) -> None:
        """See `Wire`."""
        if self._transport is not None and not self.deaf:
            self._transport.write(data)

    def hang_up(self) -> None:
        """See `Wire`."""
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> None:
        """See `Wire`."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """See `Wire`."""
        if self._transport is not None:
            self._transport.resume_reading()


class PtyWire:
    """A pseudo-terminal, as an adapter at a serial port."""

    def __init__(self, line: Line, site: Site) -> None:
        self._controller, self._terminal = os.openpty()
        tty.setraw(self._terminal)
        os.set_blocking(self._controller, False)
        self._line = line
        self._loop = asyncio.get_running_loop()
        self.deaf = False
        self.url = f"serial://{os.ttyname(self._terminal)}"
        line.connect(self)
        site.wires.add(self)
        self.resume()

    def _read(self) -> None:
        self._line.receive(os.read(self._controller, 4096), self)

    def send(self, data: bytes) -> None:
        """See `Wire`. What finds no room is lost, as in a serial port that nobody reads."""
        with suppress(BlockingIOError):
            os.write(self._controller, data)

    def hang_up(self) -> None:
        """Do nothing: a serial line knows no connections."""

    def pause(self) -> None:
        """See `Wire`."""
        self._loop.remove_reader(self._controller)

    def resume(self) -> None:
        """See `Wire`."""
        self._loop.add_reader(self._controller, self._read)
