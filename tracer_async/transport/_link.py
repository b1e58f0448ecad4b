"""The asyncio protocol object of one connection. The transport calls it.

It is an `asyncio.BufferedProtocol`: reads from TCP go into a buffer of 4 KiB that is used again, instead of 256 KiB
that asyncio allocates for each read. Serial transports call only ``data_received``, so it has that too.

A link also records when its input was last known to be empty. The application may block the event loop for seconds, and
bytes that are read after that can have arrived at any moment since then.
"""

from __future__ import annotations

import asyncio
import sys
from array import array
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from tracer_async.transport._undelivered import clear_output, is_internet, reset_on_close, undelivered

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["FRESH", "Link", "LinkOwner"]

BUFFER_SIZE = 4096

FRESH = 0.001
"""Seconds after the input was empty within which no byte can have come on a serial line: a byte takes 1.04 ms."""


# Bytes that TLS adds to each write: 22 with TLS 1.3, 29 with the usual ciphers of TLS 1.2.
_RECORD_OVERHEAD = 32


class LinkOwner(Protocol):
    """The user of a link. These methods must not raise: the event loop calls them."""

    def link_up(self, link: Link) -> None:
        """Handle that *link* is open."""

    def bytes_received(self, data: bytes | memoryview, not_before: float) -> None:
        """Handle received bytes. A memoryview is valid only until this method returns.

        *not_before* is when the input was last known to be empty before these bytes came.
        """

    def link_ended(self, link: Link) -> None:
        """Handle that the other side of *link* sends no more. It may still take bytes."""

    def link_down(self, link: Link, cause: Exception | None) -> None:
        """Handle that *link* is closed. *cause* is None if it was closed without an error."""


class _Scratch:
    """The read buffer that all links of one event loop share. No link uses it after the callback of its read.

    Each event loop has its own: event loops in other threads read at the same time. A buffer for each link would take
    45 MB for 10,000 links.
    """

    __slots__ = ("__weakref__", "buffer", "count", "time")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time = loop.time
        self.buffer = memoryview(bytearray(BUFFER_SIZE))
        self.count = array("i", [0])


_scratches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Scratch] = WeakKeyDictionary()
_scratches_lock = Lock()


def _scratch(loop: asyncio.AbstractEventLoop) -> _Scratch:
    # An event loop of Windows may start a read before bytes arrive. Then each link needs its own buffer.
    if sys.platform == "win32":
        return _Scratch(loop)
    with _scratches_lock:
        scratch = _scratches.get(loop)
        if scratch is None:
            scratch = _scratches[loop] = _Scratch(loop)
        return scratch


class Link(asyncio.BufferedProtocol):
    """One connection to a controller.

    It never checks the class of a transport, because each event loop has its own transport classes.
    """

    __slots__ = (
        "_aborted",
        "_buffer",
        "_descriptor",
        "_hides_input",
        "_overhead",
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
        "written",
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
        """Whether the code that opens the transport still uses it. See `opened`."""
        self._up = False
        """Whether `LinkOwner.link_up` was called."""
        self._sized = False
        """Whether reads go directly from the kernel to the buffer. Then a short read means that the input was empty."""
        self._hides_input = False
        """Whether the transport may hold input that has left the kernel (TLS)."""
        self._read_at = loop.time()
        self.empty_at: float = self._read_at
        """When the input was last known to be empty."""
        self.written: int = 0
        """Number of bytes written so far, as `undelivered` counts them."""
        self._overhead = 0
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the transport has released its resources."""
        self.reset_address: tuple[Any, ...] | None = None
        """The local address to connect from again, after an `abort` that sent a reset."""

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = transport  # type: ignore[assignment]  # asyncio's types know only its own classes
        if self._aborted:  # while it was opened
            self._close_unless_opening(transport)
            return
        self._descriptor = _descriptor(transport)
        encrypted = transport.get_extra_info("sslcontext") is not None
        # asyncio's event loop of Windows reads into a buffer of its own first.
        self._sized = sys.platform != "win32" and not encrypted and transport.get_extra_info("socket") is not None
        if encrypted:
            self._overhead = _RECORD_OVERHEAD
        else:
            # Not with TLS: the transport may already hold bytes that came with the end of the handshake.
            self.unread(self._scratch.time())
        self._up = True
        self._owner.link_up(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the buffer has a fixed size
        """See `asyncio.BufferedProtocol`."""
        self._read_at = self._scratch.time()
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        not_before = self.empty_at
        short = nbytes < BUFFER_SIZE
        # The rule for `empty_at`: the input was empty when a read returned fewer bytes than it could. That read began
        # at `_read_at`. Where a read says nothing about the kernel (TLS), ask the kernel.
        if not self._sized:
            self._hides_input = not short
            self.unread(self._scratch.time())
        elif short:
            self.empty_at = self._read_at
        if not self._aborted:
            self._owner.bytes_received(self._buffer[:nbytes], not_before)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. The size of *data* does not show whether more bytes are unread."""
        not_before = self.empty_at
        self.unread(self._scratch.time())
        if not self._aborted:
            self._owner.bytes_received(data, not_before)

    def eof_received(self) -> None:
        """See `asyncio.Protocol`. The transport would close after it has sent everything, commands too."""
        if not self._aborted:
            self._owner.link_ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        if self.lost.done():
            return
        self._transport = None
        self._descriptor = -1
        self.lost.set_result(None)
        if self._up:
            self._owner.link_down(self, exc)

    # Called by the owner.

    def unread(self, now: float) -> int | None:
        """Return the number of unread bytes in the kernel, or None if that is not known.

        *now* is the time just before the call. If the result is 0, the input was empty at that time.
        """
        transport = self._transport
        # A transport that is closing may have closed its descriptor, and the number may belong to another link now.
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
        """Record that all input that had arrived at *until* was read. For links where `unread` returns None."""
        self.empty_at = max(self.empty_at, until)

    def write(self, data: bytes) -> None:
        """Send *data*. If the link is failing, nothing is sent, and `LinkOwner.link_down` follows."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self.written += len(data) + self._overhead
        try:
            transport.write(data)
        except (OSError, RuntimeError):  # some transports raise if the port was unplugged, instead of closing
            transport.abort()

    def abort(self, *, discard: bool = False) -> None:
        """Close at once. The owner gets no more bytes.

        With *discard*, bytes that have not left this machine are discarded, so that a command cannot be executed after
        its caller was told that it failed. Over TCP the connection is reset instead of closed (then `reset_address` is
        set). On a serial port the output queue is cleared.
        """
        transport = self._transport
        if transport is not None:
            if discard:
                self._discard(transport)
            if not self._aborted:
                self._close_unless_opening(transport)
        self._aborted = True

    def opened(self) -> None:
        """Record that the opening has returned or raised. Close the transport if `abort` was called before that."""
        self.opening = False
        if self._aborted and self._transport is not None:
            self._close_unless_opening(self._transport)

    def _close_unless_opening(self, transport: Any) -> None:
        self._descriptor = -1
        if self.opening:
            # With uvloop, a transport that is closed before its opening has returned leaves a descriptor that two
            # objects would close. `opened` closes it later.
            return
        transport.abort()
        if not transport.is_closing():
            # If its opening is cancelled, uvloop closes a transport without a call of connection_lost. abort() does
            # nothing then.
            asyncio.get_running_loop().call_soon(self.connection_lost, None)

    def undelivered(self) -> int | None:
        """Return the number of written bytes that have not left this machine, or None if that is not known.

        With TLS these are encrypted bytes. On a Unix socket or a pseudo-terminal, bytes have left when the kernel has
        them.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return 0
        sock = transport.get_extra_info("socket")
        if sock is None and transport.get_extra_info("serial") is None:
            return 0  # a custom transport that shows neither: there is nothing that could be discarded
        held = transport.get_write_buffer_size()
        if sock is not None and not is_internet(sock):
            return held
        in_kernel = undelivered(self._descriptor)
        return None if in_kernel is None else held + in_kernel

    def _discard(self, transport: asyncio.Transport) -> None:
        sock = transport.get_extra_info("socket")
        if sock is None:
            clear_output(transport.get_extra_info("serial"))
        elif is_internet(sock) and self.undelivered() != 0:
            self.reset_address = reset_on_close(sock) or self.reset_address


def _descriptor(transport: asyncio.BaseTransport) -> int:
    """Return the descriptor that *transport* reads from, or -1 if it has none or does not show it."""
    if sys.platform != "win32":
        for name in ("socket", "serial"):
            fileno: Callable[[], Any] | None = getattr(transport.get_extra_info(name), "fileno", None)
            with suppress(OSError, ValueError):
                if fileno is not None and isinstance(number := fileno(), int):
                    return number
    return -1
