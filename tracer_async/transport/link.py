"""The protocol object that an asyncio transport talks to: as thin as it can be.

It is an `asyncio.BufferedProtocol`, so that TCP reads land in 4 KiB kept for it instead of asyncio's 256 KiB made anew
for each read; serial transports, which know only ``data_received``, call that.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Protocol

__all__ = ["LinkOwner", "LinkProtocol"]


class LinkOwner(Protocol):
    """Who uses a link. None of these may raise: they run in the event loop's callbacks."""

    def link_up(self, link: LinkProtocol) -> None:
        """Take *link* into use; it is open."""

    def bytes_received(self, data: bytes | memoryview) -> None:
        """Take bytes, as they came; a memoryview holds only until this returns."""

    def link_down(self, link: LinkProtocol, cause: Exception | None) -> None:
        """*link* is gone for good; *cause* is None where either side simply closed it."""


# What is read is decoded before anything else is read, so all links share one buffer; except on Windows, whose event
# loop reads ahead.
_BUFFER = memoryview(bytearray(4096))


class LinkProtocol(asyncio.BufferedProtocol):
    """One open link to a controller. Transports are never asked for their class: every event loop has its own."""

    __slots__ = ("_buffer", "_owner", "_transport", "closed")

    def __init__(self, owner: LinkOwner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(4096)) if sys.platform == "win32" else _BUFFER
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the transport has let go of everything it held."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = transport  # type: ignore[assignment]  # asyncio's types know only its own classes
        self._owner.link_up(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the buffer is there already
        """See `asyncio.BufferedProtocol`."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._owner.bytes_received(self._buffer[:nbytes])

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._owner.bytes_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)
        self._owner.link_down(self, exc)

    def write(self, data: bytes) -> None:
        """Send *data*; on a link that is breaking this does nothing, and the owner's ``link_down`` is on its way."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        try:
            transport.write(data)
        except (OSError, RuntimeError):  # some transports raise for a port that was pulled instead of reporting it
            transport.abort()

    def abort(self) -> None:
        """Close at once. What was written and not yet sent is dropped."""
        if self._transport is not None:
            self._transport.abort()
