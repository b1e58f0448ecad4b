"""Tells systemd that a service is ready: the protocol of ``sd_notify``."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

__all__ = ["is_service", "notify_ready"]

_VARIABLE = "NOTIFY_SOCKET"


def is_service() -> bool:
    """Return whether systemd waits for a notification."""
    return bool(os.environ.get(_VARIABLE))


def notify_ready() -> None:
    """Tell systemd, if it waits for that, that the service is ready."""
    path = os.environ.get(_VARIABLE)
    if not path:
        return
    # A name that begins with @ is one of Linux's abstract sockets.
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.sendall(b"READY=1")
