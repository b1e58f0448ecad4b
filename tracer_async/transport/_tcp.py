"""TCP and TLS connections: name resolution, Happy Eyeballs, and cancellation at any moment without a leak."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType

from tracer_async.transport import _threads
from tracer_async.transport._sockets import (
    NEXT_ADDRESS,
    AddressInfo,
    configure,
    look_up,
    may_be_port,
    new_socket,
    numeric,
)
from tracer_async.transport.address import TcpAddress

__all__ = ["TcpOpener", "adopt"]


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
            configure(sock)
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

    async def _resolve(self) -> list[AddressInfo]:
        address = numeric(self._address)
        if address is not None:
            return [address]
        return await _threads.share((self._address.host, self._address.port), look_up, self._address)


async def _connect(addresses: list[AddressInfo], local: tuple[Any, ...] | None) -> socket.socket:
    def make(address: AddrInfoType) -> socket.socket:
        return new_socket(address, local)

    try:
        return await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=NEXT_ADDRESS, socket_factory=make
        )
    except OSError as error:
        if not may_be_port(error, local):
            raise
        return await _connect(addresses, None)


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
