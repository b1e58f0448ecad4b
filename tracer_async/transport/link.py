"""The protocol object that an asyncio transport talks to.

It is an `asyncio.BufferedProtocol`, so that TCP reads land in 4 KiB kept for it instead of asyncio's 256 KiB made anew
for each read; serial transports, which know only ``data_received``, call that.

Each link also knows when its input was last known to be empty. The application may block the event loop for seconds:
what is read after that has arrived at any moment since then.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from array import array
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any, Protocol
from weakref import WeakKeyDictionary

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["FRESH", "Link", "LinkOwner"]

BUFFER_SIZE = 4096

FRESH = 0.001
"""Seconds within which no byte can have come on a serial line after its input was empty: one takes 1.04 ms."""

# A close then sends a reset, and the kernel discards what it has not delivered.
_LINGER_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class LinkOwner(Protocol):
    """The user of a link. None of these may raise: they run in the event loop's callbacks."""

    def link_up(self, link: Link) -> None:
        """Take *link* into use; it is open."""

    def bytes_received(self, data: bytes | memoryview, not_before: float) -> None:
        """Take bytes. A memoryview is valid only until this returns.

        *not_before* is the time of the event loop when the input was last known to be empty before these bytes came.
        """

    def link_down(self, link: Link, cause: Exception | None) -> None:
        """*link* is closed for good; *cause* is None if one side simply closed it."""


class _Scratch:
    """Memory that the links of one event loop share: none of them uses it across callbacks.

    Not across event loops: those of other threads read at the same moment.
    """

    __slots__ = ("__weakref__", "buffer", "count", "time")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time = loop.time
        self.buffer = memoryview(bytearray(BUFFER_SIZE))
        self.count = array("i", [0])


_scratches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Scratch] = WeakKeyDictionary()
_scratches_lock = Lock()


def _scratch(loop: asyncio.AbstractEventLoop) -> _Scratch:
    if sys.platform == "win32":  # its event loop reads ahead, into a buffer for each link
        return _Scratch(loop)
    with _scratches_lock:
        scratch = _scratches.get(loop)
        if scratch is None:
            scratch = _scratches[loop] = _Scratch(loop)
        return scratch


class Link(asyncio.BufferedProtocol):
    """One open link to a controller. Transports are never asked for their class: every event loop has its own."""

    __slots__ = (
        "_aborted",
        "_buffer",
        "_descriptor",
        "_hides_input",
        "_owner",
        "_read_at",
        "_scratch",
        "_sized",
        "_transport",
        "_up",
        "empty_at",
        "lost",
        "opening",
        "reset_address",
    )

    def __init__(self, owner: LinkOwner) -> None:
        loop = asyncio.get_running_loop()
        self._owner = owner
        self._scratch = _scratch(loop)
        self._buffer = self._scratch.buffer
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        self._aborted = False
        self.opening: bool = False
        """Whether the transport is still in the hands of what opens it: see `opened`."""
        self._up = False
        """Whether the owner knows the link."""
        self._sized = False
        """Whether a read goes straight from the kernel to the buffer, so that a short read shows an empty input."""
        self._hides_input = False
        """Whether the transport may hold input that has left the kernel (TLS)."""
        self._read_at = loop.time()
        self.empty_at: float = self._read_at
        """When the input was last known to be empty."""
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the transport has released everything."""
        self.reset_address: tuple[Any, ...] | None = None
        """The local address to connect from again, after an `abort` that sent a reset."""

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = transport  # type: ignore[assignment]  # asyncio's types know only its own classes
        if self._aborted:  # while it was opened
            self._close_unless_opening(transport)
            return
        self._descriptor = _descriptor(transport)
        encrypted = transport.get_extra_info("sslcontext") is not None
        self._sized = not encrypted and transport.get_extra_info("socket") is not None
        if not encrypted:
            # With TLS, what came with the end of the handshake is in the transport already.
            self.unread(self._scratch.time())
        self._up = True
        self._owner.link_up(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the buffer is there already
        """See `asyncio.BufferedProtocol`."""
        self._read_at = self._scratch.time()
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        not_before = self.empty_at
        short = nbytes < BUFFER_SIZE
        if not self._sized:
            self._hides_input = not short
            self.unread(self._scratch.time())
        elif short:
            self.empty_at = self._read_at
        if not self._aborted:
            self._owner.bytes_received(self._buffer[:nbytes], not_before)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. The size of *data* says nothing about what the transport has left unread."""
        not_before = self.empty_at
        self.unread(self._scratch.time())
        if not self._aborted:
            self._owner.bytes_received(data, not_before)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        if self.lost.done():
            return
        self._transport = None
        self._descriptor = -1
        self.lost.set_result(None)
        if self._up:
            self._owner.link_down(self, exc)

    # What the owner calls.

    def unread(self, now: float) -> int | None:
        """Return how many bytes wait in the kernel, or None where that cannot be told.

        *now* is a time of the event loop taken before the call. With 0, the input is known to have been empty then.
        """
        transport = self._transport
        # A transport that is closing may have closed its descriptor, and another link may have got the number.
        descriptor = self._descriptor
        if descriptor < 0 or transport is None or self._hides_input or transport.is_closing():
            return None
        count = self._scratch.count
        if sys.platform != "win32":
            try:
                fcntl.ioctl(descriptor, termios.FIONREAD, count)
            except OSError:
                return None
        unread = count[0]
        if unread == 0 and now > self.empty_at:
            self.empty_at = now
        return unread

    def note_read(self, until: float) -> None:
        """Note that all input that had arrived at *until* has been read, where `unread` could not tell."""
        self.empty_at = max(self.empty_at, until)

    def write(self, data: bytes) -> None:
        """Send *data*. On a link that is breaking this does nothing, and `link_down` follows."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        try:
            transport.write(data)
        except (OSError, RuntimeError):  # some transports raise for a port that was pulled instead of reporting it
            transport.abort()

    def abort(self, *, discard: bool = False) -> None:
        """Close at once. The owner gets no more bytes.

        With *discard*, what the other side has not received yet is discarded, as far as this machine still has it:
        over TCP by a reset instead of an orderly close (then `reset_address` is set), on a serial port by clearing its
        output queue.
        """
        transport = self._transport
        if transport is not None:
            if discard:
                self._discard(transport)
            if not self._aborted:
                self._close_unless_opening(transport)
        self._aborted = True

    def opened(self) -> None:
        """Note that the opening has returned, or raised; close what was aborted meanwhile."""
        self.opening = False
        if self._aborted and self._transport is not None:
            self._close_unless_opening(self._transport)

    def _close_unless_opening(self, transport: Any) -> None:
        self._descriptor = -1
        if self.opening:
            # A transport that is closed before its opening has returned leaves the descriptor to two owners (uvloop).
            return
        transport.abort()
        if not transport.is_closing():
            # uvloop closes a transport whose opening is cancelled without a call of connection_lost, and its abort
            # does nothing then.
            asyncio.get_running_loop().call_soon(self.connection_lost, None)

    def discard_output(self) -> bool:
        """Discard what was written and has not left this machine; return whether that takes an `abort`."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        sock = transport.get_extra_info("socket")
        if sock is None:
            _clear_output(transport)
            return False
        return sock.family in (socket.AF_INET, socket.AF_INET6) and _holds_output(transport, sock)

    def _discard(self, transport: asyncio.Transport) -> None:
        if self.discard_output():
            with suppress(OSError):  # closed already
                sock = transport.get_extra_info("socket")
                address = sock.getsockname()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
                self.reset_address = address


def _descriptor(transport: asyncio.BaseTransport) -> int:
    """Return the descriptor that *transport* reads from, or -1 where there is none that can be asked."""
    if sys.platform != "win32":
        for name in ("socket", "serial"):
            fileno: Callable[[], Any] | None = getattr(transport.get_extra_info(name), "fileno", None)
            with suppress(OSError, ValueError):
                if fileno is not None and isinstance(number := fileno(), int):
                    return number
    return -1


def _holds_output(transport: asyncio.Transport, sock: Any) -> bool:
    """Return whether bytes wait here that the other side has not acknowledged. Where nothing tells, they may."""
    if transport.get_write_buffer_size():
        return True
    if sys.platform == "win32":
        return True
    count = array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)  # the same number as SIOCOUTQ
    except OSError:
        return True
    return count[0] > 0


def _clear_output(transport: asyncio.Transport) -> None:
    port = transport.get_extra_info("serial")
    clear = getattr(port, "reset_output_buffer", None) or getattr(port, "reset_write_buffer", None)
    if clear is not None:
        with suppress(Exception):  # a port that was pulled raises termios.error, which is no OSError
            clear()
