"""The checks of a network connection, and what an error of the opening means."""

from __future__ import annotations

import asyncio
import errno
import ssl
import sys
from collections.abc import Callable
from dataclasses import replace

from tracer_async.doctor._contents import REQUEST, Contents
from tracer_async.doctor._findings import Finding, finding
from tracer_async.doctor._port import held_by_unknown, permission
from tracer_async.doctor._probe import open_probe
from tracer_async.errors import (
    HostNotFoundError,
    LinkError,
    LinkRefusedError,
    LinkTimeoutError,
    PortBusyError,
    PortNotFoundError,
    PortPermissionError,
    TlsError,
)
from tracer_async.transport import Address, SerialAddress, TcpAddress, UnixAddress
from tracer_async.transport._sockets import look_up, numeric
from tracer_async.transport._threads import call

__all__ = ["check_name", "speaks_tls", "why_not_opened"]

_NAME_TIMEOUT = 10.0
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
# How OpenSSL calls an answer that is not TLS.
_NOT_TLS = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


async def check_name(address: TcpAddress, report: Callable[[Finding], None]) -> bool:
    """Look up the host name. Return whether it is known. A numeric address has nothing to look up."""
    try:
        if numeric(address) is not None:
            return True
    except OSError as error:  # an IPv6 address with an interface that does not exist
        report(finding("net-failed", f"{address.host}: {error.strerror or error}"))
        return False
    try:
        async with asyncio.timeout(_NAME_TIMEOUT):
            found = await call(look_up, address)
    except TimeoutError:
        report(finding("net-name-unknown", f"the name server did not answer within {_NAME_TIMEOUT:g} s"))
        return False
    except OSError as error:
        report(finding("net-name-unknown", f"{address.host}: {error.strerror or error}"))
        return False
    report(finding("net-name", f"{address.host} is {', '.join(dict.fromkeys(str(each[4][0]) for each in found))}"))
    return True


async def why_not_opened(address: Address, error: LinkError) -> Finding:
    """Return the finding for an error of the opening."""
    match address:
        case TcpAddress(tls=True) if _may_be_plain(error):
            return await _without_tls(address)
        case SerialAddress() | UnixAddress() if isinstance(error, PortPermissionError) and sys.platform != "win32":
            return permission(address.path)
        case SerialAddress() if isinstance(error, PortBusyError):
            return held_by_unknown(address.path)
        case UnixAddress() if isinstance(error, PortNotFoundError):
            advice = "Start the program that listens on it."
            return finding("port-missing", address.path, title="no such socket", advice=advice)
    kinds = {
        HostNotFoundError: "net-name-unknown",
        LinkRefusedError: "net-refused",
        TlsError: "net-tls-failed",
        PortPermissionError: "port-failed",
        LinkTimeoutError: "port-failed" if isinstance(address, SerialAddress) else "net-timeout",
        PortNotFoundError: "port-missing",
        LinkError: "port-failed" if isinstance(address, SerialAddress) else "net-failed",
    }
    name = next(name for kind, name in kinds.items() if isinstance(error, kind))
    if getattr(error.__cause__, "errno", None) in _NO_ROUTE:
        name = "net-no-route"
    # The title of these says all.
    if name in ("net-refused", "net-no-route", "net-timeout"):
        return finding(name, str(address))
    return finding(name, error.reason.removeprefix("TLS failed: "))


def _may_be_plain(error: LinkError) -> bool:
    """Return whether the other side may speak no TLS: it sends something else, nothing, or closes the connection."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return False
    if isinstance(cause, ssl.SSLError):
        return isinstance(cause, ssl.SSLEOFError) or cause.reason in _NOT_TLS
    return isinstance(error, LinkTimeoutError) or (
        isinstance(cause, ConnectionError) and not isinstance(error, LinkRefusedError)
    )


async def _without_tls(address: TcpAddress) -> Finding:
    plain = replace(address, tls=False)
    try:
        async with open_probe(plain) as probe:
            probe.send(REQUEST)
            await probe.wait(1.5, lambda data: Contents.of(data).frames)
            answers = bool(Contents.of(probe.data).frames)
    except LinkError as second:
        return await why_not_opened(plain, second)
    if answers:
        return finding("net-no-tls", "the controller answers there without TLS")
    return finding("net-no-tls", "it accepts connections without TLS, but the controller does not answer there")


async def speaks_tls(address: TcpAddress) -> bool:
    """Return whether a TLS handshake succeeds, with any certificate. Nothing is sent over the connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with open_probe(replace(address, tls=True), ssl_context=context, timeout=3.0):
            return True
    except LinkError:
        return False
