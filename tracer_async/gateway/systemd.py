"""What systemd wants to know of a service: the protocol of ``sd_notify``, and its watchdog.

Without systemd all of this does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

__all__ = ["notify", "notify_reloading", "watchdog_interval"]


def notify(*assignments: str) -> None:
    """Send assignments such as ``READY=1``. Never raises: the service works without a supervisor, too."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    # A name that begins with @ is one of Linux's abstract sockets.
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        # A supervisor that does not read must not stop the event loop.
        sock.setblocking(False)
        sock.connect(address)
        sock.send("\n".join(assignments).encode())


def notify_reloading() -> None:
    """Say that the configuration is read again. ``READY=1`` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_interval() -> float | None:
    """Return how often to send ``WATCHDOG=1``, in seconds; None if nobody waits for it."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdigit()) or not int(microseconds):
        return None
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000 / 2
