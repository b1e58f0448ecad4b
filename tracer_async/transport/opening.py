"""Opens the link to an address, and raises one kind of error for each way in which that fails."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

from tracer_async.errors import AddressError, LinkError, MissingExtraError
from tracer_async.transport._open_errors import explain
from tracer_async.transport._serial import PyserialOpener, SerialxOpener
from tracer_async.transport._tcp import TcpOpener, adopt
from tracer_async.transport.address import Address, SerialAddress, SimAddress, TcpAddress, UnixAddress
from tracer_async.transport.link import Link

__all__ = ["TransportFactory", "open_link", "transport_factory"]

TransportFactory = Callable[[Callable[[], Any]], Awaitable[tuple[Any, Any]]]
"""Opens a link: called with a protocol factory, it returns ``(transport, protocol)``."""

# Seconds between attempts to connect to a Unix socket whose listener does not keep up.
_UNIX_RETRY = 0.05


def transport_factory(address: Address, *, ssl_context: ssl.SSLContext | None = None) -> TransportFactory:
    """Return what opens *address*, each time it is called. Raises MissingExtraError at once if a package is missing."""
    match address:
        case SerialAddress():
            return _serial(address)
        case TcpAddress():
            return TcpOpener(address, ssl_context)
        case UnixAddress():
            return _unix(address)
        case SimAddress():
            return _sim(address)


async def open_link(
    name: str,
    factory: TransportFactory,
    protocol: Callable[[], Any],
    timeout: float,
    *,
    local_address: tuple[Any, ...] | None = None,
) -> Link:
    """Open a link. Raises a `LinkError` that tells the causes apart, or AddressError if the port refuses an option.

    A TCP connection comes from the port of *local_address*, if that is given and free. When this raises, what was
    opened until then is closed, and its owner hears nothing of it, except of its end if it was up.
    """
    made: list[Link] = []

    def make() -> Link:
        made.append(protocol())
        made[-1].opening = True
        return made[-1]

    try:
        async with asyncio.timeout(timeout):
            if isinstance(factory, TcpOpener):
                await factory(make, local_address)
            else:
                await factory(make)
            if not made:
                raise LinkError(name, "the transport factory returned without calling its protocol factory")
            made[-1].opened()
            return made[-1]
    except BaseException as error:
        for link in made:
            link.abort()
            link.opened()
        if isinstance(error, _PASSED_ON):
            raise
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # Also when a factory made another error of the cancellation.
            raise asyncio.CancelledError from error
        # A factory that the user brought may raise anything, also CancelledError because a task of its own was
        # cancelled. The client has to go on.
        raise explain(name, error, timeout) from error


# Errors that need no explanation, and those that are no failure of the opening.
_PASSED_ON = (LinkError, AddressError, MissingExtraError, KeyboardInterrupt, SystemExit, GeneratorExit)


def _unix(address: UnixAddress) -> TransportFactory:
    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        made = protocol()
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            while True:
                try:
                    sock.connect(address.path)
                    break
                except BlockingIOError:  # the listener's queue is full; nothing tells when it no longer is
                    await asyncio.sleep(_UNIX_RETRY)
            connecting = loop.create_unix_connection(lambda: made, sock=sock)
        except BaseException:
            sock.close()
            raise
        return await adopt(connecting, sock)

    return connect


def _sim(address: SimAddress) -> TransportFactory:
    # The simulator uses this package, so it is imported only when it is needed.
    from tracer_async.simulator import SimulatedTracer, open_in_process

    tracer = SimulatedTracer(seed=address.seed, time_scale=address.time_scale, start_hour=address.start_hour)

    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        return await open_in_process(protocol, tracer)

    return connect


def _serial(address: SerialAddress) -> TransportFactory:
    if address.backend == "serialx" or (address.backend == "auto" and not find_spec("serial_asyncio")):
        if find_spec("serialx"):
            return SerialxOpener(address)
        raise MissingExtraError("a serial port", "serialx" if address.backend == "serialx" else "serial")
    if find_spec("serial_asyncio"):
        return PyserialOpener(address)
    raise MissingExtraError("a serial port", "serial")
