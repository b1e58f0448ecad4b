"""Turns what a transport raises while it is opened into an error of the library, with advice.

The advice depends on the kind of the address: a network connection gets no advice about cables and permissions.
"""

from __future__ import annotations

import errno
import socket
import ssl
from ipaddress import ip_address

from tracer_async.errors import (
    AddressError,
    HostNotFoundError,
    LinkError,
    LinkRefusedError,
    LinkTimeoutError,
    PortBusyError,
    PortNotFoundError,
    PortPermissionError,
    TlsError,
    TracerError,
)

__all__ = ["explain"]

_NO_TLS = "Does the bridge speak TLS on this port? If not, write tcp:// instead of tls://"
_NO_PERMISSION = (errno.EACCES, errno.EPERM)


def explain(name: str, error: BaseException, timeout: float | None) -> TracerError:
    """Return the error for what a transport raised while *name*, an address, was opened.

    A TimeoutError without a number means that *timeout* seconds have passed. With None, the limit was another one.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # the error of a custom transport factory may raise anything, here too
        text = type(error).__name__
    if isinstance(error, ssl.CertificateError | ssl.SSLError):
        return _tls(name, error, text)
    if isinstance(error, TimeoutError) or _code(error) == errno.ETIMEDOUT:
        # Linux gives up a connection attempt itself after about 2 minutes, with ETIMEDOUT.
        own = timeout is not None and _code(error) is None
        reason = f"no connection within {timeout:g} s" if own else "the attempt to connect timed out"
        return LinkTimeoutError(name, f"{reason}. {_timeout_advice(name)}")
    if name.startswith("unix:"):
        known = _unix(name, error)
    elif name.startswith(("tcp:", "tls:")):
        known = _network(name, error)
    else:
        known = _port(name, error, text)
    if known is not None:
        return known
    if isinstance(error, ValueError):
        return AddressError(f"{name}: {text}")
    return LinkError(name, f"could not be opened: {text or repr(error)}")


def _code(error: BaseException) -> int | None:
    return getattr(error, "errno", None)


def _timeout_advice(name: str) -> str:
    if name.startswith("unix:"):
        return "Is the program that listens on this socket still running?"
    if not name.startswith(("tcp:", "tls:")):
        return "Is the device on?"
    if _is_this_computer(name):
        advice = "Is the program that listens on this port still running?"
    else:
        advice = "Is the device on, and the network up?"
    # A plain bridge never answers the first message of TLS, because it waits for a request.
    return f"{advice} {_NO_TLS}" if name.startswith("tls:") else advice


def _is_this_computer(name: str) -> bool:
    host = name.partition("://")[2].rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _tls(name: str, error: ssl.SSLError, text: str) -> TlsError:
    # Only errors from OpenSSL have a reason; Python's own have a text.
    code = getattr(error, "reason", None)
    reason = getattr(error, "verify_message", "") or code or text
    if isinstance(error, ssl.SSLEOFError) or code == "WRONG_VERSION_NUMBER":
        return TlsError(name, f"TLS failed: {reason}. {_NO_TLS}")
    return TlsError(name, f"TLS failed: {reason}")


def _unix(name: str, error: BaseException) -> LinkError | None:
    code = _code(error)
    if code in (errno.ENOENT, errno.ENOTDIR):
        return PortNotFoundError(name, "no such socket. Is the program that listens on it running?")
    if isinstance(error, ConnectionRefusedError):
        return LinkRefusedError(name, "refused. Is it a socket, and is the program that listens on it running?")
    if code in _NO_PERMISSION:
        return PortPermissionError(name, "no permission to use this socket. Your user needs write permission for it")
    return None


def _network(name: str, error: BaseException) -> LinkError | None:
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return HostNotFoundError(name, "the host name cannot be resolved now. Is the network up?")
        return HostNotFoundError(name, "no such host. Is its name spelled correctly, and known in this network?")
    if isinstance(error, ConnectionRefusedError):
        if _is_this_computer(name):
            return LinkRefusedError(
                name, "refused: no program on this computer listens on this port. Is it running, and is the port right?"
            )
        return LinkRefusedError(name, "refused. Is the serial bridge configured to listen on this port?")
    if isinstance(error, ConnectionError) and name.startswith("tls:"):
        return LinkError(name, f"the other side closed the connection. {_NO_TLS}")
    return None


def _port(name: str, error: BaseException, text: str) -> LinkError | None:
    """Return the error for a serial port, or for a custom transport factory. None if the cause is not known."""
    code = _code(error)
    # On Windows, pyserial puts the name of the original exception into its text.
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR) or "FileNotFoundError" in text:
        return PortNotFoundError(
            name, "no such port. Is the cable plugged in? `tracer-async ports` lists the serial ports"
        )
    if code == errno.EISDIR:
        return PortNotFoundError(name, "is a folder, not a serial port. `tracer-async ports` lists the serial ports")
    if code in _NO_PERMISSION:
        return PortPermissionError(
            name,
            "no permission to open it. Join the group that owns it (sudo usermod -aG dialout $USER), then log in again",
        )
    # Windows reports a port that another program has open as a lack of permission.
    if code in (errno.EBUSY, errno.EAGAIN) or "PermissionError" in text:
        return PortBusyError(
            name, "another program has it open. Close that program, or let both connect to `tracer-async share`"
        )
    # The file exists, but it has no baud rate to set.
    if code == errno.ENOTTY:
        return PortNotFoundError(name, "not a serial port. `tracer-async ports` lists the serial ports")
    if isinstance(error, ConnectionRefusedError):
        return LinkRefusedError(name, "refused")
    return None
