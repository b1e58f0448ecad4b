"""Sockets: addresses, options, and what to try if a local port cannot be used. Nothing here waits, except `look_up`."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from contextlib import suppress
from typing import Any

from tracer_async.errors import HostNotFoundError
from tracer_async.transport.address import TcpAddress

__all__ = ["NEXT_ADDRESS", "UNIX_RETRY", "AddressInfo", "configure", "look_up", "may_be_port", "new_socket", "numeric"]

AddressInfo = tuple[int, int, int, str, Any]
"""What ``socket.getaddrinfo`` returns for one address."""

NEXT_ADDRESS = 0.25
"""Seconds until the next address of a host is tried at the same time (RFC 8305). If the first address swallows packets,
the second one is still reached."""

UNIX_RETRY = 0.05
"""Seconds between attempts to connect to a Unix socket while the queue of its listener is full."""

# The kernel closes a connection whose other side is gone after 60 + 4 * 15 seconds without a byte.
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))

# A socket option of Linux: the range of its local ports, the highest in the upper 16 bits. Python has no name for it.
_IP_LOCAL_PORT_RANGE = 51

# Errors that are not about the local port.
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.ETIMEDOUT)


def look_up(address: TcpAddress) -> list[AddressInfo]:
    """Resolve the name of a host. May block without limit. Raises HostNotFoundError if it is not a valid name."""
    try:
        return list(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP))
    except UnicodeError:  # a label of the name is empty or too long
        raise HostNotFoundError(str(address), "this is not a valid host name") from None


def numeric(address: TcpAddress) -> AddressInfo | None:
    """Return the address of a host that is a numeric one, else None. A numeric address needs no `look_up`."""
    host, port = address.host, address.port
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
    scope = ip.scope_id or "0"
    number = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host.partition("%")[0], port, 0, number))


def new_socket(address: AddressInfo, local: tuple[Any, ...] | None) -> socket.socket:
    """Return a socket for *address* that connects from the port of *local*, if that is given and free."""
    sock = socket.socket(*address[:3])
    if local is not None and sock.family == (socket.AF_INET6 if len(local) == 4 else socket.AF_INET):
        _use_port(sock, local[1])
    return sock


def _use_port(sock: socket.socket, port: int) -> None:
    """Connect from *port* if it is free. The address is left open: this machine may have another one by now."""
    if sys.platform == "linux":
        with suppress(OSError):
            # Unlike bind(), this works even if a connection to another host uses the port (Linux 6.3).
            sock.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, struct.pack("=I", port << 16 | port))
            return
    with suppress(OSError):  # another connection uses the port: then connect from any port
        if sys.platform != "win32":  # on Windows this option would take the port from another program
            # Two addresses of a host may be tried from the same port at the same time.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))


def may_be_port(error: OSError, local: tuple[Any, ...] | None) -> bool:
    """Return whether connecting may have failed because of the port of *local*. Then any other port may work.

    The port may be in use after all: a connection in TIME_WAIT can make connect() fail although bind() worked.
    """
    return local is not None and error.errno not in _UNREACHABLE and not isinstance(error, ConnectionError)


def configure(sock: socket.socket) -> None:
    """Set the options of a connected TCP socket."""
    with suppress(OSError):  # the other side may have closed the connection, which the first read will report
        # Requests are small: without this option TCP may delay them.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in _KEEPALIVE:
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
