"""An open connection that keeps what it receives. It sends only what its user gives it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tracer_async.transport import Address
from tracer_async.transport._link import Link
from tracer_async.transport._opening import open_link, transport_factory

__all__ = ["Probe", "open_probe"]

_MAX_KEPT = 65536
_CLOSE_TIMEOUT = 1.0


class Probe:
    """The owner of a link. See `tracer_async.transport._link.LinkOwner`."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._data = bytearray()
        self._changed = asyncio.Event()
        self.closed: bool = False
        """Whether the other side has closed the connection, or the port was unplugged."""

    def link_up(self, link: Link) -> None:
        """See `LinkOwner`."""
        self._link = link

    def bytes_received(self, data: bytes | memoryview, not_before: float) -> None:  # noqa: ARG002
        """See `LinkOwner`."""
        self._data += data[: _MAX_KEPT - len(self._data)]
        self._changed.set()

    def link_ended(self, link: Link) -> None:
        """See `LinkOwner`."""
        link.abort()

    def link_down(self, link: Link, cause: Exception | None) -> None:  # noqa: ARG002
        """See `LinkOwner`."""
        self.closed = True
        self._changed.set()

    @property
    def data(self) -> bytes:
        """What was received since the last call of `clear`, at most 64 KiB."""
        return bytes(self._data)

    def clear(self) -> None:
        """Forget what was received."""
        self._data.clear()

    def send(self, data: bytes) -> None:
        """Send *data*."""
        if self._link is not None:
            self._link.write(data)

    async def wait(self, seconds: float, enough: Callable[[bytes], object] = lambda _data: False) -> None:
        """Receive for *seconds*, or until *enough* of `data` is true, 64 KiB came, or the connection is closed."""
        try:
            async with asyncio.timeout(seconds):
                while not self.closed and len(self._data) < _MAX_KEPT and not enough(self.data):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass


@asynccontextmanager
async def open_probe(
    address: Address, *, ssl_context: ssl.SSLContext | None = None, timeout: float = 5.0
) -> AsyncIterator[Probe]:
    """Open a connection. Raises the errors of `TracerClient.open`. At the end of the block it is closed."""
    probe = Probe()
    factory = transport_factory(address, ssl_context=ssl_context)
    link = await open_link(str(address), factory, lambda: Link(probe), timeout)
    try:
        yield probe
    finally:
        link.abort()
        # A port can be opened again only after this.
        await asyncio.wait([link.lost], timeout=_CLOSE_TIMEOUT)
