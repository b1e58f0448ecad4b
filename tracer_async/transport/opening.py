"""From an address to an open link, and from the many ways in which that fails to one error each."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tracer_async.errors import (
    AddressError,
    HostNotFoundError,
    LinkError,
    LinkRefusedError,
    LinkTimeoutError,
    MissingExtraError,
    PortBusyError,
    PortNotFoundError,
    PortPermissionError,
    TlsError,
    TracerError,
)
from tracer_async.transport.address import Address, SerialAddress, SimAddress, TcpAddress, UnixAddress

if TYPE_CHECKING:
    import serial

__all__ = ["TransportFactory", "open_link", "transport_factory"]

TransportFactory = Callable[[Callable[[], Any]], Awaitable[tuple[Any, Any]]]
"""Opens a link: called with a protocol factory, it returns ``(transport, protocol)``."""


def transport_factory(address: Address, *, ssl_context: ssl.SSLContext | None = None) -> TransportFactory:
    """Return what opens *address*, each time it is called. Raises MissingExtraError at once if a package is missing."""
    match address:
        case SerialAddress():
            return _serial(address)
        case TcpAddress():
            return _tcp(address, ssl_context)
        case UnixAddress():
            return _unix(address)
        case SimAddress():
            return _sim(address)


async def open_link(name: str, factory: TransportFactory, protocol: Callable[[], Any], timeout: float) -> Any:
    """Open a link and return its protocol. Raises a `LinkError` that tells the causes apart."""
    try:
        async with asyncio.timeout(timeout):
            return (await factory(protocol))[1]
    except TracerError:
        raise
    except Exception as error:  # a factory that the user brought may raise anything, and the client has to live on
        raise _explain(name, error, timeout) from error


def _explain(name: str, error: Exception, timeout: float) -> TracerError:
    """Return the error of the tree for what a transport raised while it was opened."""
    code = getattr(error, "errno", None)
    text = str(error)
    if isinstance(error, ssl.CertificateError | ssl.SSLError):
        reason = getattr(error, "verify_message", "") or error.reason or text
        return TlsError(name, f"TLS failed: {reason}")
    if isinstance(error, socket.gaierror):
        return HostNotFoundError(name, "no such host. Is its name spelled right, and does this network know it?")
    if isinstance(error, TimeoutError) or code == errno.ETIMEDOUT:
        return LinkTimeoutError(name, f"no connection within {timeout:g} s. Is the device on, and the network up?")
    if isinstance(error, ConnectionRefusedError) or code == errno.ECONNREFUSED:
        return LinkRefusedError(name, "refused. Is the serial bridge set up to listen there, and is the port right?")
    # On Windows, pyserial tells its causes in words.
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO) or "FileNotFoundError" in text:
        if name.startswith("unix:"):
            return PortNotFoundError(name, "no such socket. Does the program that listens there run?")
        return PortNotFoundError(name, "no such port. Is the cable plugged in?")
    if code in (errno.EACCES, errno.EPERM):
        return PortPermissionError(
            name,
            "no permission to open it. Join the group that owns it: sudo usermod -aG dialout $USER, then log in anew",
        )
    if code in (errno.EBUSY, errno.EAGAIN) or "PermissionError" in text:
        return PortBusyError(name, "another program has it open. Close that one, or share the controller over TCP")
    if code == errno.ENOTTY or "Could not configure port" in text:
        return PortNotFoundError(name, "not a serial port")
    if isinstance(error, ValueError):
        return AddressError(f"{name}: {text}")
    return LinkError(name, f"could not be opened: {text or repr(error)}")


def _tcp(address: TcpAddress, ssl_context: ssl.SSLContext | None) -> TransportFactory:
    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        nonlocal ssl_context
        loop = asyncio.get_running_loop()
        if address.tls and ssl_context is None:
            # Reads the system's certificates: tens of milliseconds that the loop shall not stand still for.
            ssl_context = await asyncio.to_thread(ssl.create_default_context)
        try:
            transport, made = await loop.create_connection(
                protocol, address.host, address.port, ssl=ssl_context if address.tls else None
            )
        except UnicodeError:  # a label of the name is empty or too long
            raise HostNotFoundError(str(address), "that is no host name") from None
        with suppress(OSError):  # the other side may have hung up already, which the protocol has been told
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
                if hasattr(socket, option):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
        return transport, made

    return connect


def _unix(address: UnixAddress) -> TransportFactory:
    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        return await asyncio.get_running_loop().create_unix_connection(protocol, address.path)

    return connect


def _sim(address: SimAddress) -> TransportFactory:
    # The simulator stands storeys above: it is fetched when somebody asks for it, never before.
    from tracer_async.simulator import SimulatedTracer, open_in_process

    tracer = SimulatedTracer(seed=address.seed, time_scale=address.time_scale, start_hour=address.start_hour)

    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        return await open_in_process(protocol, tracer)

    return connect


def _serial(address: SerialAddress) -> TransportFactory:
    if address.backend == "serialx" or (address.backend == "auto" and not find_spec("serial_asyncio")):
        if find_spec("serialx"):
            return _serialx(address)
        raise MissingExtraError("a serial port", "serialx" if address.backend == "serialx" else "serial")
    if find_spec("serial_asyncio"):
        return _pyserial(address)
    raise MissingExtraError("a serial port", "serial")


def _pyserial(address: SerialAddress) -> TransportFactory:
    def open_port() -> serial.Serial:
        import serial

        try:
            return serial.Serial(
                address.path,
                address.baudrate,
                bytesize=address.bytesize,
                parity=address.parity,
                stopbits=address.stopbits,
                exclusive=True,
            )
        except serial.SerialException:
            raise
        except Exception as error:  # termios.error, which is no OSError: the file is not a terminal
            raise serial.SerialException(errno.ENOTTY, str(error)) from error

    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        from tracer_async.transport.pyserial import PortTransport

        loop = asyncio.get_running_loop()
        # Opening a port can block for as long as its driver likes. A port that opens after its opener was cancelled
        # is closed again.
        opening = loop.run_in_executor(None, open_port)
        try:
            port = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_late)
            # Mostly a matter of milliseconds, and then whoever is next finds the port free.
            await asyncio.wait([opening], timeout=1.0)
            raise
        made = protocol()
        transport = PortTransport(loop, made, port)
        try:
            await asyncio.sleep(0)  # connection_made is on its way
        except asyncio.CancelledError:
            transport.abort()
            raise
        return transport, made

    return connect


def _close_late(opening: asyncio.Future[serial.Serial]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _serialx(address: SerialAddress) -> TransportFactory:
    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        import serialx

        return await serialx.create_serial_connection(
            asyncio.get_running_loop(),
            protocol,
            address.path,
            address.baudrate,
            parity=serialx.Parity(address.parity),
            stopbits=serialx.StopBits(address.stopbits),
            byte_size=address.bytesize,
            exclusive=True,
        )

    return connect
