"""A controller's URL, and what it says.

``/dev/ttyUSB0``, ``COM3``, ``serial:///dev/ttyUSB0?baudrate=9600``, ``tcp://host:port``, ``host:port``,
``tls://host:port``, ``unix:/path``, ``sim:``
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from tracer_async.errors import AddressError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Address", "SerialAddress", "SimAddress", "TcpAddress", "UnixAddress", "parse_address"]

EXAMPLES = (
    "/dev/ttyUSB0, COM3, serial:///dev/ttyUSB0?baudrate=9600, tcp://192.168.1.20:8088, tls://bridge.example:8899, "
    "unix:/run/tracer.sock or sim:"
)

_COM_PORT = re.compile(r"COM\d+", re.IGNORECASE)
_HOST_PORT = re.compile(r"[^/?#\s]+:\d+")


@dataclass(frozen=True, slots=True)
class SerialAddress:
    """A serial port: 9600 baud, 8N1, unless the URL says otherwise."""

    path: str
    baudrate: int = 9600
    bytesize: Literal[5, 6, 7, 8] = 8
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1
    backend: Literal["auto", "pyserial", "serialx"] = "auto"
    """Which package opens it; "auto" takes pyserial-asyncio where it is installed, else serialx."""

    def __str__(self) -> str:
        return f"serial://{_quote(self.path)}{_query(self)}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A serial-to-TCP bridge, plain or behind TLS."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.tls else 'tcp'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix://{_quote(self.path)}"


@dataclass(frozen=True, slots=True)
class SimAddress:
    """A simulated controller within this process."""

    seed: int = 0
    """The same seed gives the same weather."""
    time_scale: float = 1.0
    """Simulated seconds a second."""
    start_hour: float = 10.0
    """The hour of the simulated day that it starts at."""

    def __str__(self) -> str:
        return f"sim:{_query(self)}"


Address = SerialAddress | TcpAddress | UnixAddress | SimAddress


def parse_address(url: str) -> Address:
    """Return what *url* names. Raises AddressError, with examples of right ones, for anything else."""
    if not isinstance(url, str):
        raise TypeError(f"a URL is a str, not {type(url).__name__}")
    try:
        return _parse(url.strip())
    except AddressError:
        raise
    except ValueError as error:
        raise AddressError(f"{url!r} is no address of a controller: {error}. Right ones: {EXAMPLES}") from None


def _parse(url: str) -> Address:
    if url.startswith(("/", "\\\\.\\")) or _COM_PORT.fullmatch(url):
        return SerialAddress(url)
    if "://" not in url and _HOST_PORT.fullmatch(url) and not url.lower().startswith(("sim:", "unix:", "serial:")):
        url = f"tcp://{url}"
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    if parts.fragment:
        raise ValueError(f"it ends in {'#' + parts.fragment!r}")
    if scheme == "serial":
        path = unquote(parts.netloc + parts.path)
        if not path:
            raise ValueError("it names no serial port")
        return SerialAddress(path, **_convert(options, _SERIAL_OPTIONS))
    if scheme in ("tcp", "tls"):
        _convert(options, {})
        if parts.username is not None or parts.path not in ("", "/"):
            raise ValueError("it has more in it than a host and a port")
        if not parts.hostname:
            raise ValueError("it names no host")
        if not parts.port:
            raise ValueError("it names no port, which is a number from 1 to 65535")
        return TcpAddress(parts.hostname, parts.port, tls=scheme == "tls")
    if scheme == "unix":
        _convert(options, {})
        path = unquote(parts.netloc + parts.path)
        if not path:
            raise ValueError("it names no socket")
        return UnixAddress(path)
    if scheme == "sim":
        if parts.netloc or parts.path not in ("", "/"):
            raise ValueError("a simulated controller has no host or path")
        return SimAddress(**_convert(options, _SIM_OPTIONS))
    raise ValueError(f"there is no scheme {scheme!r}" if scheme else "it has no scheme and is no host:port")


def _number(low: float, high: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        value = float(text)
        if not low <= value < high:
            raise ValueError(text)
        return value

    return convert


def _whole(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return convert


def _one_of(*choices: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return convert


# Of each option: how its text becomes its value, and what is said of a wrong one.
_Options = dict[str, tuple["Callable[[str], Any]", str]]
_SERIAL_OPTIONS: _Options = {
    "baudrate": (_whole(1, 10_000_000), "a whole number above 0"),
    "bytesize": (_whole(5, 8), "5, 6, 7 or 8"),
    "parity": (_one_of("N", "E", "O"), "N, E or O"),
    "stopbits": (_whole(1, 2), "1 or 2"),
    "backend": (_one_of("auto", "pyserial", "serialx"), "auto, pyserial or serialx"),
}
_SIM_OPTIONS: _Options = {
    "seed": (_whole(0, 2**63), "a whole number from 0 on"),
    "time_scale": (_number(0.001, 1e6), "a number from 0.001 to less than 1000000"),
    "start_hour": (_number(0, 24), "an hour from 0 to less than 24"),
}


def _convert(options: dict[str, str], known: _Options) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in options.items():
        if name not in known:
            has = f"the options are {', '.join(known)}" if known else "there are none here"
            raise ValueError(f"there is no option {name!r}, {has}")
        convert, right = known[name]
        try:
            values[name] = convert(text)
        except ValueError:
            raise ValueError(f"{name} must be {right}, not {text!r}") from None
    return values


def _quote(path: str) -> str:
    """Return *path* with the characters escaped that would end it within a URL."""
    return path.replace("%", "%25").replace("?", "%3F").replace("#", "%23")


def _query(address: SerialAddress | SimAddress) -> str:
    """Return the options that differ from their defaults, as a URL's query."""
    options = {f.name: getattr(address, f.name) for f in fields(address) if f.name != "path"}
    changed = {f.name: options[f.name] for f in fields(address) if f.name in options and options[f.name] != f.default}
    texts = {name: str(value).removesuffix(".0") for name, value in changed.items()}
    return "?" + urlencode(texts) if texts else ""
