"""The error of the tree for each way in which a transport cannot be opened, and what to do about it."""

from __future__ import annotations

import errno
import socket
import ssl

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

_NO_TLS = "Does the bridge speak TLS on this port? A plain one needs tcp:// instead of tls://"
_REFUSED = (errno.EACCES, errno.EPERM)


def explain(name: str, error: BaseException, timeout: float) -> TracerError:
    """Return the error of the tree for what a transport raised while it was opened. *name* is the address."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # an error of the user's own may raise anything even here
        text = type(error).__name__
    if isinstance(error, ssl.CertificateError | ssl.SSLError):
        return _tls(name, error, text)
    if isinstance(error, TimeoutError) or _code(error) == errno.ETIMEDOUT:
        ask = f"Is the device on, and the network up? {_NO_TLS}" if name.startswith("tls:") else _device_on(name)
        return LinkTimeoutError(name, f"no connection within {timeout:g} s. {ask}")
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


def _device_on(name: str) -> str:
    if name.startswith("tcp:"):
        return "Is the device on, and the network up?"
    return "Is the program that listens there still running?" if name.startswith("unix:") else "Is the device on?"


def _tls(name: str, error: ssl.SSLError, text: str) -> TlsError:
    # Only an error that OpenSSL has made has a reason.
    code = getattr(error, "reason", None)
    reason = getattr(error, "verify_message", "") or code or text
    if isinstance(error, ssl.SSLEOFError) or code == "WRONG_VERSION_NUMBER":
        return TlsError(name, f"TLS failed: {reason}. {_NO_TLS}")
    return TlsError(name, f"TLS failed: {reason}")


def _unix(name: str, error: BaseException) -> LinkError | None:
    code = _code(error)
    if code in (errno.ENOENT, errno.ENOTDIR):
        return PortNotFoundError(name, "no such socket. Is the program running that listens there?")
    if isinstance(error, ConnectionRefusedError):
        return LinkRefusedError(name, "refused. Is it a socket, and is the program running that listens there?")
    if code in _REFUSED:
        return PortPermissionError(name, "no permission to use this socket. Your user needs write permission for it")
    return None


def _network(name: str, error: BaseException) -> LinkError | None:
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return HostNotFoundError(name, "the host name cannot be looked up now. Is the network up?")
        return HostNotFoundError(name, "no such host. Is its name spelled right, and does this network know it?")
    if isinstance(error, ConnectionRefusedError):
        return LinkRefusedError(name, "refused. Is the serial bridge set up to listen there, and is the port right?")
    if isinstance(error, ConnectionError) and name.startswith("tls:"):
        return LinkError(name, f"the other side hung up. {_NO_TLS}")
    return None


def _port(name: str, error: BaseException, text: str) -> LinkError | None:
    """Return the error for a serial port. It may also be a transport factory of the user's own."""
    code = _code(error)
    # On Windows, pyserial tells its causes in words.
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR) or "FileNotFoundError" in text:
        return PortNotFoundError(
            name, "no such port. Is the cable plugged in? `tracer-async ports` lists the serial ports"
        )
    if code == errno.EISDIR:
        return PortNotFoundError(name, "is a folder, not a serial port. `tracer-async ports` lists the serial ports")
    if code in _REFUSED:
        return PortPermissionError(
            name,
            "no permission to open it. Join the group that owns it (sudo usermod -aG dialout $USER), then log in again",
        )
    if code in (errno.EBUSY, errno.EAGAIN) or "PermissionError" in text:
        return PortBusyError(name, "another program has it open. Close that one, or share the controller over TCP")
    if code == errno.ENOTTY or "Could not configure port" in text:
        return PortNotFoundError(name, "not a serial port. `tracer-async ports` lists the serial ports")
    if isinstance(error, ConnectionRefusedError):
        return LinkRefusedError(name, "refused")
    return None
