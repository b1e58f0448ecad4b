"""Accepts HTTP connections within limits: how many there are, and how long a client may take.

- At most 500 connections, and 100 of one address. They are counted before the TLS handshake. They take at most half of
  the files that the process may open, so that controllers and other outputs have the rest.
- The first request must be complete within 10 s, a later one within 75 s of the answer before it.
- An answer that the client does not read within 30 s ends the connection, so that slow readers free their places.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, cast

from aiohttp import web

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["Connections", "call_when_lost", "listening_sockets", "network_of", "note_request"]

_log = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 10.0
_FIRST_REQUEST_SECONDS = 10.0
_IDLE_SECONDS = 75.0
_WRITE_SECONDS = 30.0
_MOST = 500
_MOST_OF_ONE_ADDRESS = 100
_BACKLOG = 128


def network_of(address: str) -> str:
    """Return what a client is counted by: its IPv4 address, or the /64 network of its IPv6 address.

    A provider gives each customer a whole /64 network.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4 or parsed.is_loopback:
        return str(parsed)
    return f"{int(parsed) >> 64:016x}"


async def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address of *host*. Raises OSError if an address is not free.

    ``::`` means all addresses, those of IPv4 too. They get a socket of their own: on one socket for both, clients would
    have IPv6 addresses that contain their IPv4 ones.
    """
    found = [
        info
        for each in ((host, "0.0.0.0") if host == "::" else (host,))  # noqa: S104  # the owner wants it
        for info in await asyncio.get_running_loop().getaddrinfo(
            each, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
    ]
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((info[0], info[4]) for info in found):
            # Of a name with several addresses, port 0 means the same free port for all.
            chosen = (address[0], port or (sockets[0].getsockname()[1] if sockets else 0), *address[2:])
            sock = socket.create_server(chosen, family=family, backlog=_BACKLOG)
            sock.setblocking(False)
            sockets.append(sock)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


class Connections:
    """Accepts connections for *server*, with TLS if there is a context for it."""

    def __init__(
        self,
        server: web.Server,
        tls: ssl.SSLContext | None = None,
        *,
        most: int = _MOST,
        most_of_one: int = _MOST_OF_ONE_ADDRESS,
    ) -> None:
        self.tls: ssl.SSLContext | None = tls
        """Used for each new connection. It may be replaced at any time."""
        self._server = server
        self._most = min(most, _open_files() // 2)
        self._most_of_one = most_of_one
        self._of_network: Counter[str] = Counter()
        self._opening: set[asyncio.Task[None]] = set()

    async def accept(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on listening *sockets*, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for sock in sockets:
                    group.create_task(self._accept(sock))
        finally:
            for task in self._opening:
                task.cancel()

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                sock, address = await asyncio.get_running_loop().sock_accept(listening)
            except ConnectionError:
                continue  # the client has left already
            except OSError as error:  # such as too many open files
                _log.error("web: no connection can be accepted: %s", error.strerror or error)
                await asyncio.sleep(1.0)
                continue
            network = network_of(str(address[0]))
            if not self._enter(network):
                sock.close()
                continue
            task = asyncio.create_task(self._open(sock, network))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket, network: str) -> None:
        leave = _Once(partial(self._leave, network))
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Connection(self._server, leave),
                sock,
                ssl=self.tls,
                ssl_handshake_timeout=None if self.tls is None else _HANDSHAKE_SECONDS,
            )
        except OSError:  # no valid handshake
            leave()
            sock.close()
        except BaseException:
            leave()
            sock.close()
            raise

    def _enter(self, network: str) -> bool:
        """Count a connection. Return whether there is room for it."""
        if self._of_network.total() >= self._most:
            return False
        # Clients on this machine may be a proxy for all others.
        if network not in {"127.0.0.1", "::1"} and self._of_network[network] >= self._most_of_one:
            return False
        self._of_network[network] += 1
        return True

    def _leave(self, network: str) -> None:
        self._of_network[network] -= 1
        if not self._of_network[network]:
            del self._of_network[network]


def _open_files() -> int:
    """Return how many files this process may open."""
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit != resource.RLIM_INFINITY:
            return limit
    return 2 * _MOST


class _Once:
    """Calls a function at the first call, and not again."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function()


class _Connection(web.RequestHandler):
    """One connection, with the time limits of this module."""

    __slots__ = ("_leave", "_lower", "_request_timer", "_write_timer", "when_lost")

    def __init__(self, server: web.Server, leave: Callable[[], None]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_IDLE_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # None turns it off
            lingering_time=1.0,
            # No request needs it, and one that is not compressed as it says would be logged with a stack trace.
            auto_decompress=False,
        )
        self._leave = leave
        self.when_lost: Callable[[], None] | None = None
        self._lower: asyncio.Transport | None = None
        self._request_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        lower = self._lower = cast("asyncio.Transport", transport)
        # `pause_writing` is called as soon as a byte waits. 0 is no limit that every transport understands.
        lower.set_write_buffer_limits(high=1, low=0)
        self._request_timer = self._loop.call_later(_FIRST_REQUEST_SECONDS, lower.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.request_came()
        self._cancel_write_timer()
        self._lower = None
        self._leave()
        if self.when_lost is not None:
            self.when_lost()
        super().connection_lost(exc)

    def request_came(self) -> None:
        """Note that the client has sent a whole request."""
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._lower is not None and self._write_timer is None:
            self._write_timer = self._loop.call_later(_WRITE_SECONDS, self._lower.abort)

    def resume_writing(self) -> None:
        self._cancel_write_timer()
        super().resume_writing()

    def _cancel_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def handle_error(
        self,
        request: Any,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Answer what is no valid request with nothing but the status."""
        if status >= 500:
            _log.error("web: a request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer has been sent already")
        response = web.Response(
            status=status, text=f"{HTTPStatus(status).phrase}\n", headers={"Server": "tracer-async"}
        )
        response.force_close()
        return response


def call_when_lost(request: web.Request, function: Callable[[], None]) -> None:
    """Call *function* when the connection of a request is lost."""
    if isinstance(request.protocol, _Connection):
        request.protocol.when_lost = function


@web.middleware
async def note_request(request: web.Request, handler: Any) -> Any:
    """Stop the timer of the first request."""
    if isinstance(request.protocol, _Connection):
        request.protocol.request_came()
    return await handler(request)
