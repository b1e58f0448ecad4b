"""TCP and TLS connections: name resolution, Happy Eyeballs, and cancellation at any moment without a leak."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType

from tracer_async.errors import HostNotFoundError
from tracer_async.transport import _threads
from tracer_async.transport.address import TcpAddress

__all__ = ["TcpOpener", "adopt"]

# Seconds until the next address of a host is tried at the same time (RFC 8305). If the first address swallows packets,
# the second one is still reached.
_NEXT_ADDRESS = 0.25

# The kernel closes a connection whose other side is gone after 60 + 4 * 15 seconds without a byte.
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))

# A socket option of Linux: the range of its local ports, the highest in the upper 16 bits. Python has no name for it.
_IP_LOCAL_PORT_RANGE = 51

# Errors that are not about the local port.
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.ETIMEDOUT)


class TcpOpener:
    """Opens connections to one address: a `TransportFactory`."""

    __slots__ = ("_address", "_context")

    def __init__(self, address: TcpAddress, ssl_context: ssl.SSLContext | None) -> None:
        self._address = address
        self._context = ssl_context

    async def __call__(
        self, protocol: Callable[[], Any], local_address: tuple[Any, ...] | None = None
    ) -> tuple[Any, Any]:
        """Connect, from the port of *local_address* if it is given and free."""
        made = protocol()  # before connecting: it records the time before which no byte can have come
        options: dict[str, Any] = {}
        if self._address.tls:
            options = {"ssl": await self._ssl_context(), "server_hostname": self._address.host}
        sock = await _connect(await self._resolve(), local_address)
        try:
            _configure(sock)
            connecting = asyncio.get_running_loop().create_connection(lambda: made, sock=sock, **options)
        except BaseException:
            sock.close()
            raise
        return await adopt(connecting, sock)

    async def _ssl_context(self) -> ssl.SSLContext:
        if self._context is not None:
            return self._context
        # A new one for each attempt, because the certificates of the system change. In a thread, because reading them
        # takes tens of milliseconds.
        return await _threads.share("ssl", ssl.create_default_context)

    async def _resolve(self) -> list[AddrInfoType]:
        host, port = self._address.host, self._address.port
        numeric = _numeric(host, port)
        if numeric is not None:
            return [numeric]
        try:
            return await _threads.share((host, port), _look_up, host, port)
        except UnicodeError:  # a label of the name is empty or too long
            raise HostNotFoundError(str(self._address), "this is not a valid host name") from None


def _look_up(host: str, port: int) -> list[AddrInfoType]:
    # list() because the element type of getaddrinfo is narrower than the one that aiohappyeyeballs expects.
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP))


def _numeric(host: str, port: int) -> AddrInfoType | None:
    """Return *host* as an address if it is a numeric one, else None. A numeric address needs no thread."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
    scope = ip.scope_id or "0"
    number = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host.partition("%")[0], port, 0, number))


async def _connect(addresses: list[AddrInfoType], local: tuple[Any, ...] | None) -> socket.socket:
    def make(address: AddrInfoType) -> socket.socket:
        sock = socket.socket(*address[:3])
        if local is not None and sock.family == (socket.AF_INET6 if len(local) == 4 else socket.AF_INET):
            _use_port(sock, local[1])
        return sock

    try:
        return await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS, socket_factory=make
        )
    except OSError as error:
        if local is None or error.errno in _UNREACHABLE or isinstance(error, ConnectionError):
            raise
        # The port may be in use after all: a connection in TIME_WAIT can make connect() fail although bind() worked.
        return await _connect(addresses, None)


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


def _configure(sock: socket.socket) -> None:
    with suppress(OSError):  # the other side may have closed the connection, which the transport will report
        # Requests are small: without this option TCP may delay them.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in _KEEPALIVE:
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)


async def adopt(connecting: Coroutine[Any, Any, tuple[Any, Any]], sock: socket.socket) -> tuple[Any, Any]:
    """Await *connecting*, which creates a transport for the connected *sock*. May be cancelled at any moment.

    The coroutine of the event loop itself is never cancelled: uvloop would close the transport without a call of
    ``connection_lost``, or two objects would close the same descriptor. Instead the socket is shut down, which ends the
    coroutine at once.
    """

    def close_unless_used(task: asyncio.Task[tuple[Any, Any]]) -> None:
        # The task failed before there was a transport, which would close the socket.
        if task.cancelled() or task.exception() is not None:
            sock.close()

    task = asyncio.get_running_loop().create_task(connecting)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.done():
            _end(task)
        else:
            task.add_done_callback(_end)
            with suppress(OSError):  # the other side has closed the connection
                sock.shutdown(socket.SHUT_RDWR)
            await asyncio.wait([task], timeout=1.0)
        raise
    finally:
        task.add_done_callback(close_unless_used)


def _end(task: asyncio.Task[tuple[Any, Any]]) -> None:
    """Close the transport that a cancelled opening has created."""
    if not task.cancelled() and task.exception() is None:
        task.result()[0].abort()
