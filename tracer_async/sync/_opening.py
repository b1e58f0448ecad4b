"""Opens the connection to an address without an event loop. Each kind of failure has its own error."""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from tracer_async.errors import AddressError, LinkError, MissingExtraError
from tracer_async.sync._wires import PortWire, SocketWire, Wire
from tracer_async.transport._open_errors import explain
from tracer_async.transport._opening import simulated_device
from tracer_async.transport._serial import open_port
from tracer_async.transport._sockets import (
    NEXT_ADDRESS,
    UNIX_RETRY,
    AddressInfo,
    configure,
    look_up,
    may_be_port,
    new_socket,
    numeric,
)
from tracer_async.transport.address import Address, SerialAddress, SimAddress, TcpAddress, UnixAddress

__all__ = ["Opener", "open_wire", "opener"]

Opener = Callable[[float, tuple[Any, ...] | None], Wire]
"""Opens a connection: called with the time limit in seconds, and with the local address to connect from or None."""


def opener(address: Address, *, ssl_context: ssl.SSLContext | None) -> Opener:
    """Return the opener of *address*. Raises MissingExtraError if a package is missing, AddressError for serialx."""
    match address:
        case SerialAddress():
            return _serial(address)
        case TcpAddress():
            return lambda timeout, local: SocketWire(_tcp(address, ssl_context, timeout, local))
        case UnixAddress():
            return lambda timeout, _: SocketWire(_unix(address, timeout))
        case SimAddress():
            return _sim(address)


def open_wire(name: str, opener: Opener, timeout: float, local_address: tuple[Any, ...] | None) -> Wire:
    """Open a connection within *timeout* seconds. Raises the subclass of `LinkError` for the cause, AddressError.

    The time limit does not include opening a serial port and resolving a name: only a thread could limit these.
    """
    try:
        return opener(timeout, local_address)
    except (LinkError, AddressError, MissingExtraError):
        raise
    except Exception as error:
        raise explain(name, error, timeout) from error


def _serial(address: SerialAddress) -> Opener:
    if address.backend == "serialx":
        raise AddressError(f"{address}: the blocking client opens serial ports with pyserial, not with serialx")
    if not find_spec("serial"):
        raise MissingExtraError("a serial port", "serial")
    return lambda *_: PortWire(open_port(address))


def _sim(address: SimAddress) -> Opener:
    # Imported here, because most clients do not need it.
    from tracer_async.simulator._faulty_port import make_port
    from tracer_async.sync._sim_wire import SimWire

    device = simulated_device(address)
    return lambda *_: SimWire(make_port(device, None))


def _unix(address: UnixAddress, timeout: float) -> socket.socket:
    deadline = time.monotonic() + timeout
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(address.path)
            except BlockingIOError:  # the queue of the listener is full, and no event reports when it has space
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                time.sleep(UNIX_RETRY)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


def _tcp(
    address: TcpAddress, context: ssl.SSLContext | None, timeout: float, local: tuple[Any, ...] | None
) -> socket.socket:
    deadline = time.monotonic() + timeout
    known = numeric(address)
    addresses = [known] if known is not None else look_up(address)
    try:
        sock = _connect(addresses, deadline, local)
    except OSError as error:
        if not may_be_port(error, local):
            raise
        sock = _connect(addresses, deadline, None)
    try:
        configure(sock)
        if not address.tls:
            return sock
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        # A new context for each attempt, because the certificates of the system change.
        return (context or ssl.create_default_context()).wrap_socket(sock, server_hostname=address.host)
    except BaseException:
        sock.close()
        raise


def _connect(addresses: Sequence[AddressInfo], deadline: float, local: tuple[Any, ...] | None) -> socket.socket:
    """Connect to the first address that answers. Raises the first error if none does, TimeoutError at *deadline*."""
    rest = list(addresses)
    errors: list[OSError] = []
    next_at = time.monotonic()
    with selectors.DefaultSelector() as selector:
        try:
            while rest or selector.get_map():
                now = time.monotonic()
                if now >= deadline:
                    raise TimeoutError
                if rest and (now >= next_at or not selector.get_map()):
                    next_at = now + NEXT_ADDRESS
                    _begin(selector, rest.pop(0), local, errors)
                until = min(deadline, next_at) if rest else deadline
                for key, _ in selector.select(max(0.0, until - now)) if selector.get_map() else ():
                    sock: Any = selector.unregister(key.fileobj).fileobj
                    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not number:
                        return sock  # type: ignore[no-any-return]  # a selector does not know what it was given
                    sock.close()
                    errors.append(OSError(number, os.strerror(number)))
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]  # as above
    raise errors[0] if errors else OSError("the name has no address")


def _begin(
    selector: selectors.BaseSelector, address: AddressInfo, local: tuple[Any, ...] | None, errors: list[OSError]
) -> None:
    """Begin to connect to an address. Add the error to *errors* if that fails."""
    try:
        sock = new_socket(address, local)
    except OSError as error:  # the kernel lacks the address family: the other addresses may work
        errors.append(error)
        return
    try:
        sock.setblocking(False)
        sock.connect(address[4])
    except BlockingIOError:
        pass
    except OSError as error:
        sock.close()
        errors.append(error)
        return
    selector.register(sock, selectors.EVENT_WRITE)
