"""Opens the link to an address. Each kind of failure has its own error."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from tracer_async.errors import AddressError, CaptureError, LinkError, MissingExtraError
from tracer_async.transport._link import Link
from tracer_async.transport._open_errors import explain
from tracer_async.transport._serial import PyserialOpener, SerialxOpener
from tracer_async.transport._sockets import UNIX_RETRY
from tracer_async.transport._tcp import TcpOpener, adopt
from tracer_async.transport.address import Address, SerialAddress, SimAddress, TcpAddress, UnixAddress

if TYPE_CHECKING:
    from tracer_async.capture import Recording
    from tracer_async.simulator import Replay, SimulatedTracer

__all__ = ["TransportFactory", "open_link", "simulated_device", "transport_factory"]

TransportFactory = Callable[[Callable[[], Any]], Awaitable[tuple[Any, Any]]]
"""Opens a connection: called with a protocol factory, it returns ``(transport, protocol)``."""


def transport_factory(address: Address, *, ssl_context: ssl.SSLContext | None = None) -> TransportFactory:
    """Return the transport factory for *address*. Raises MissingExtraError if a package is missing."""
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
    """Open a link within *timeout* seconds.

    A TCP connection uses the port of *local_address*, if one is given and free. Raises the subclass of `LinkError` for
    the cause, or AddressError if the port does not accept an option. Then everything that was opened is closed. The
    owner of the link is not called, except for the end of a link that was already up.
    """
    made: list[Link] = []

    def make() -> Link:
        made.append(protocol())
        made[-1].opening = True
        return made[-1]

    loop = asyncio.get_running_loop()
    task = cast("asyncio.Task[Any]", asyncio.current_task(loop))  # there is one: asyncio.timeout needs it
    cancelled_before = task.cancelling()
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            if isinstance(factory, TcpOpener):
                opened: object = await factory(make, local_address)
            else:
                opened = await factory(make)
        if task.cancelling() > cancelled_before:  # the factory has swallowed the cancellation
            raise asyncio.CancelledError
        if not made:
            raise LinkError(name, "the transport factory returned without calling its protocol factory")
        return _used(made, opened)
    except BaseException as error:
        for link in made:
            link.abort()
            link.opened()
        # If this task does not run, its coroutine is being closed: GeneratorExit does not come from the factory then.
        if isinstance(error, _PASSED_ON) or asyncio.current_task(loop) is not task:
            raise
        if task.cancelling() > cancelled_before:
            # The task was cancelled. A custom factory may have turned the cancellation into another error.
            raise asyncio.CancelledError from error
        # A custom factory may raise anything, even CancelledError from a task of its own. That is a failed attempt and
        # must not end the client.
        raise explain(name, error, timeout if limit.expired() else None) from error


def _used(made: list[Link], opened: object) -> Link:
    """Return the link that the factory has returned, and close the others: it may have tried several addresses."""
    returned = opened[1] if isinstance(opened, tuple) and len(opened) == 2 else None
    used = next((link for link in made if link is returned), made[-1])
    for link in made:
        if link is not used:
            link.abort()
        link.opened()
    return used


# Raised unchanged: errors with an explanation, and exceptions that are not a failure to open.
_PASSED_ON = (LinkError, AddressError, MissingExtraError, KeyboardInterrupt, SystemExit)


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
                except BlockingIOError:  # the queue of the listener is full, and no event reports when it has space
                    await asyncio.sleep(UNIX_RETRY)
            connecting = loop.create_unix_connection(lambda: made, sock=sock)
        except BaseException:
            sock.close()
            raise
        return await adopt(connecting, sock)

    return connect


def _sim(address: SimAddress) -> TransportFactory:
    # Imported here, because the simulator imports this library, and most clients do not need it.
    from tracer_async.simulator import open_in_process

    tracer = simulated_device(address)

    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        return await open_in_process(protocol, tracer)

    return connect


def simulated_device(address: SimAddress) -> SimulatedTracer | Replay:
    """Return the device of *address*. Raises AddressError if the recording cannot be read."""
    from tracer_async.simulator import Replay, SimulatedTracer

    if address.replay:
        return Replay(_recording(address.replay), speed=address.speed)
    return SimulatedTracer(seed=address.seed, time_scale=address.time_scale, start_hour=address.start_hour)


def _recording(path: str) -> Recording:
    from tracer_async.capture import Recording

    try:
        return Recording.read(path)
    except OSError as error:
        raise AddressError(f"{path}: cannot read the recording: {error.strerror or error}") from None
    except CaptureError as error:
        raise AddressError(f"{path}: {error}") from None


def _serial(address: SerialAddress) -> TransportFactory:
    if address.backend == "serialx" or (address.backend == "auto" and not find_spec("serial_asyncio")):
        if find_spec("serialx"):
            return SerialxOpener(address)
        raise MissingExtraError("a serial port", "serialx" if address.backend == "serialx" else "serial")
    if find_spec("serial_asyncio"):
        return PyserialOpener(address)
    raise MissingExtraError("a serial port", "serial")
