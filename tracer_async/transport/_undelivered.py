"""Bytes that were written and have not left this machine. A command among them must not be delivered later."""

from __future__ import annotations

import socket
import struct
import sys
from array import array
from contextlib import suppress
from typing import Any

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["clear_output", "is_internet", "reset_on_close", "undelivered"]

# With this option a close sends a reset, and the kernel discards all undelivered bytes.
_LINGER_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


def is_internet(sock: Any) -> bool:
    """Return whether a socket is one over which bytes can be undelivered. On a Unix socket they never are."""
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def undelivered(descriptor: int) -> int | None:
    """Return the number of bytes in the kernel that have not left this machine, or None if that is not known.

    Over TCP, bytes have left it when the other side has acknowledged them.
    """
    if sys.platform == "win32":
        return None
    count = array("i", [0])
    try:
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, count)  # has the same number as SIOCOUTQ, the one for sockets
    except OSError:
        return None
    return count[0]


def reset_on_close(sock: Any) -> tuple[Any, ...] | None:
    """Let the close of a TCP socket send a reset. Return its local address, or None if it is already closed."""
    with suppress(OSError):
        address: tuple[Any, ...] = sock.getsockname()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        return address
    return None


def clear_output(port: Any) -> None:
    """Clear the output queue of a serial port of any package."""
    clear = getattr(port, "reset_output_buffer", None) or getattr(port, "reset_write_buffer", None)
    if clear is not None:
        with suppress(Exception):  # an unplugged port raises termios.error, which is not an OSError
            clear()
