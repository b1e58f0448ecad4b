"""Serves one controller to any number of programs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network

from tracer_async.client.client import TracerClient
from tracer_async.errors import LinkError
from tracer_async.protocol._numbers import check_number, check_whole
from tracer_async.sharing._addresses import PtyPlace, TcpPlace, UnixPlace, parse_place
from tracer_async.sharing._hub import Hub, SharingStats
from tracer_async.sharing._programs import Programs
from tracer_async.sharing._sockets import Network, SocketServer
from tracer_async.sharing._terminals import TerminalServer

__all__ = ["Sharing", "share"]

_log = logging.getLogger("tracer_async.sharing")


class Sharing:
    """A controller that is shared. `share` creates it."""

    def __init__(self, programs: Programs, urls: Sequence[str], warnings: Sequence[str]) -> None:
        self._programs = programs
        self.urls: tuple[str, ...] = tuple(urls)
        """The URLs to connect to, in the order of the given addresses."""
        self.warnings: tuple[str, ...] = tuple(warnings)
        """What anyone on the network can do. Empty if the controller is shared on this machine only."""

    def __repr__(self) -> str:
        return f"<Sharing {' '.join(self.urls)}>"

    @property
    def stats(self) -> SharingStats:
        """The present counters."""
        return self._programs.stats


@asynccontextmanager
async def share(
    client: TracerClient | str,
    *addresses: str,
    max_age: float = 0.0,
    reply_within: float = 0.8,
    read_only: bool = False,
    allow: Iterable[str] = (),
    max_clients: int = 64,
    idle_timeout: float = 600.0,
) -> AsyncIterator[Sharing]:
    """Share one controller among any number of programs until the block ends: each sees a controller of its own.

    :param client: The open client of the controller, or its URL. The client of a URL waits 0.4 s for an answer, repeats
        a reading once, and sends nothing for 0.25 s after a request without an answer. If you give a client, you may
        use it at the same time.
    :param addresses: Where programs connect: ``HOST:PORT`` (0 takes a free port), ``unix:PATH``, or ``pty:LINK`` for a
        symbolic link that opens like a serial port.
    :param max_age: Seconds for which a reading may be given to other programs too. With 0 each reading is taken after
        it was requested.
    :param reply_within: Seconds after which a request is not answered any more. Programs wait for 1 s.
    :param read_only: Whether only readings are passed on. Other commands get no answer.
    :param allow: Networks, such as ``192.168.1.0/24``, from which programs may connect over TCP. Empty: any.
    :param max_clients: Maximum number of programs.
    :param idle_timeout: Seconds without a request after which a program is disconnected.
    :raises AddressError: if an address is invalid.
    :raises LinkError: if it cannot listen on an address, or if there is no connection to the controller at the URL.
    :raises LinkClosedError: if the client is not open.
    :raises TypeError: if an option is not a number.
    :raises ValueError: if an option is out of its range (``docs/ranges.md``), or a network is invalid.
    """
    places = [parse_place(address) for address in addresses]
    if not places:
        raise ValueError("give at least one address to listen on, such as 127.0.0.1:8088")
    networks = [ip_network(network) for network in allow]
    max_age, reply_within = check_number("max_age", max_age), check_number("reply_within", reply_within)
    max_clients, idle_timeout = check_whole("max_clients", max_clients), check_number("idle_timeout", idle_timeout)
    async with AsyncExitStack() as stack:
        if isinstance(client, str):
            client = await stack.enter_async_context(TracerClient(client, timeout=0.4, retries=1, fence=0.25))
        connection = client.connection()
        connection.check_loop()
        hub = Hub(connection, max_age=max_age, reply_within=reply_within, read_only=read_only)
        programs = Programs(hub, max_clients=max_clients, idle_timeout=idle_timeout)
        # Last, after the programs were disconnected: their sockets are closed in the next turn of the event loop.
        stack.push_async_callback(asyncio.sleep, 0)
        stack.callback(programs.close)
        urls = [await _listen(stack, programs, place, networks) for place in places]
        exposed = [] if networks else [url for place, url in zip(places, urls, strict=True) if _is_exposed(place)]
        warnings = [_warning(url, read_only) for url in exposed]
        for warning in warnings:
            _log.warning(warning)
        yield Sharing(programs, urls, warnings)


async def _listen(
    stack: AsyncExitStack, programs: Programs, place: TcpPlace | UnixPlace | PtyPlace, allow: Sequence[Network]
) -> str:
    try:
        if isinstance(place, PtyPlace):
            terminals = TerminalServer(programs, place)
            stack.callback(terminals.close)
            return terminals.listen()
        sockets = SocketServer(programs, allow)
        stack.callback(sockets.close)
        return await (sockets.listen_tcp(place) if isinstance(place, TcpPlace) else sockets.listen_unix(place))
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LinkError(str(place), f"cannot listen there: {reason}") from error


def _is_exposed(place: TcpPlace | UnixPlace | PtyPlace) -> bool:
    return isinstance(place, TcpPlace) and not place.is_loopback


def _warning(url: str, read_only: bool) -> str:
    can = "read the controller" if read_only else "read the controller, switch its load and change its settings"
    less = "" if read_only else ", or use --read-only"
    return f"{url} has no password: everyone on its network can {can}. Limit it with --allow{less}"
