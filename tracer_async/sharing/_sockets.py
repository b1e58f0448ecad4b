"""Programs that connect over TCP or a Unix socket."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import cast

from tracer_async.sharing._addresses import TcpPlace, UnixPlace
from tracer_async.sharing._program import Program
from tracer_async.sharing._programs import Programs
from tracer_async.transport._socket_files import MadeSocket, refuse_taken

__all__ = ["Network", "SocketServer"]

Network = IPv4Network | IPv6Network

_READ_SIZE = 1024


class SocketServer:
    """Listens on a TCP port or a Unix socket."""

    def __init__(self, programs: Programs, allow: Sequence[Network]) -> None:
        self._programs = programs
        self._allow = allow
        self._servers: list[asyncio.Server] = []
        self._made: MadeSocket | None = None

    async def listen_tcp(self, place: TcpPlace) -> str:
        """Listen on all addresses of the host. Return the URL. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        port = place.port
        for address in dict.fromkeys(info[4][0] for info in found):
            server = await loop.create_server(lambda: _Wire(self._programs, self._allow), str(address), port)
            self._servers.append(server)
            port = server.sockets[0].getsockname()[1]  # a free port is the same on all addresses
        return str(place._replace(port=port))

    async def listen_unix(self, place: UnixPlace) -> str:
        """Listen on a Unix socket. Return the URL. Raises OSError, NotImplementedError on Windows."""
        if sys.platform == "win32":
            raise NotImplementedError("Windows has no Unix sockets for asyncio: use TCP")
        refuse_taken(place.path)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: _Wire(self._programs, ()), place.path)
        self._servers.append(server)
        self._made = MadeSocket(place.path)
        return str(place)

    def close(self) -> None:
        """Stop listening, and remove the Unix socket."""
        if self._made is not None:
            self._made.remove()
        for server in self._servers:
            server.close()


class _Wire(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, programs: Programs, allow: Sequence[Network]) -> None:
        self._programs = programs
        self._allow = allow
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._transport: asyncio.Transport | None = None
        self._program: Program | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        # Not checked: each event loop has its own classes.
        self._transport = connected = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        over_tcp = isinstance(peer, tuple)
        program = Program(
            self._programs,
            f"client {peer[0]}:{peer[1]}" if over_tcp else f"client {id(self):x}",
            self._send,
            connected.abort,
        )
        if over_tcp and self._allow and not _is_allowed(peer[0], self._allow):
            self._programs.refuse(program.name, "its address is not allowed")
            connected.abort()
        elif not self._programs.add(program):
            connected.abort()
        else:
            self._program = program

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the buffer has a fixed size
        """See `asyncio.BufferedProtocol`."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        transport = self._transport
        if self._program is None or transport is None or transport.is_closing():
            return
        wait = self._program.received(bytes(self._buffer[:nbytes]), is_all=nbytes < _READ_SIZE)
        if wait > 0 and not transport.is_closing():
            transport.pause_reading()
            asyncio.get_running_loop().call_later(wait, self._resume)

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _send(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > 0:
            # It does not read. What waits here would be read much too late, as the answer to another request.
            transport.abort()
        else:
            transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # it has left, whatever the reason
        """See `asyncio.BaseProtocol`."""
        self._transport = None
        if self._program is not None:
            self._program.left()


def _is_allowed(host: str, networks: Sequence[Network]) -> bool:
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
