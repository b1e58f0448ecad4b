"""Open connections, read and written without waiting. `Bell` waits for them."""

from __future__ import annotations

import os
import select
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any, Protocol

from tracer_async.transport._undelivered import clear_output, is_internet, reset_on_close, undelivered

if TYPE_CHECKING:
    import serial

__all__ = ["CHECK_INTERVAL", "PortWire", "SocketWire", "Wire"]

_READ_SIZE = 4096

CHECK_INTERVAL = 0.005
"""Seconds between two looks at a serial port on Windows, which has no descriptor to wait for."""


class Wire(Protocol):
    """An open connection. After an OSError or EOFError it only has to be closed."""

    descriptor: int
    """The file descriptor to wait for; -1 if there is none."""
    unsent: bytes
    """Bytes that could not be written yet."""

    def read(self) -> tuple[bytes, bool]:
        """Return the bytes that have arrived, and whether no others had arrived when the read began.

        Raises OSError if the connection is lost, EOFError if the other side has closed it.
        """
        ...

    def write(self, data: bytes) -> None:
        """Write *data* after `unsent`, as much as is possible without waiting. Raises OSError."""
        ...

    def next_input(self, now: float) -> float | None:
        """Return when to read again. None: when the descriptor is readable."""
        ...

    def discard_output(self) -> bool:
        """Discard written bytes that have not left this machine. Return True if `close` has to do that."""
        ...

    def close(self, *, discard: bool) -> tuple[Any, ...] | None:
        """Close at once. With *discard*, nothing that has not left this machine is delivered later.

        Return the local address to connect from again, if a reset was sent.
        """
        ...


class SocketWire:
    """A connected TCP, TLS or Unix socket."""

    __slots__ = ("_encrypted", "_sock", "descriptor", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._encrypted = isinstance(sock, ssl.SSLSocket)
        self.descriptor: int = sock.fileno()
        self.unsent: bytes = b""

    def read(self) -> tuple[bytes, bool]:
        """See `Wire`."""
        try:
            data = self._sock.recv(_READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b"", True
        if not data:
            raise EOFError
        # A short read means that the input was empty. With TLS it does not: it returns one record.
        return data, len(data) < _READ_SIZE and not self._encrypted

    def write(self, data: bytes) -> None:
        """See `Wire`."""
        if self.unsent:
            data = self.unsent + data
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = 0
        self.unsent = data[sent:]

    def next_input(self, now: float) -> None:  # the descriptor tells
        """See `Wire`."""

    def discard_output(self) -> bool:
        """See `Wire`."""
        return bool(self.unsent) or (is_internet(self._sock) and undelivered(self._sock.fileno()) != 0)

    def close(self, *, discard: bool) -> tuple[Any, ...] | None:
        """See `Wire`."""
        address = None
        if discard and is_internet(self._sock) and self.discard_output():
            address = reset_on_close(self._sock)
        self._sock.close()
        return address


class PortWire:
    """A serial port, opened with pyserial."""

    __slots__ = ("_poll", "_port", "descriptor", "unsent")

    def __init__(self, port: serial.Serial) -> None:
        port.timeout = port.write_timeout = 0
        self._port = port
        # pyserial opens the descriptor in non-blocking mode.
        self.descriptor: int = -1
        if sys.platform != "win32":
            self.descriptor = port.fileno()
            self._poll = select.poll()
            self._poll.register(self.descriptor, select.POLLIN)
        self.unsent: bytes = b""

    def read(self) -> tuple[bytes, bool]:
        """See `Wire`."""
        if sys.platform == "win32":
            data = self._port.read(_READ_SIZE)
            return data, len(data) < _READ_SIZE
        try:
            data = os.read(self.descriptor, _READ_SIZE)
            if not data:
                # With pyserial's settings this means that there is no input. But an unplugged port is always readable,
                # and has no bytes.
                if not self._poll.poll(0):
                    return b"", True
                data = os.read(self.descriptor, _READ_SIZE)
        except BlockingIOError:
            return b"", True
        if not data:
            raise ConnectionError("the port was unplugged")
        # Not known: the driver may return fewer bytes than it has.
        return data, False

    def write(self, data: bytes) -> None:
        """See `Wire`."""
        if self.unsent:
            data = self.unsent + data
        try:
            sent = (self._port.write(data) or 0) if sys.platform == "win32" else os.write(self.descriptor, data)
        except BlockingIOError:
            sent = 0
        self.unsent = data[sent:]

    def next_input(self, now: float) -> float | None:
        """See `Wire`."""
        return now + CHECK_INTERVAL if self.descriptor < 0 else None

    def discard_output(self) -> bool:
        """See `Wire`."""
        self.unsent = b""
        clear_output(self._port)
        return False

    def close(self, *, discard: bool) -> None:  # noqa: ARG002  # the kernel would wait for unsent output
        """See `Wire`."""
        self.discard_output()
        self._port.close()
