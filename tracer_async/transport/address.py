"""The URL of a controller, parsed.

``/dev/ttyUSB0``, ``COM3``, ``serial:///dev/ttyUSB0?baudrate=9600``, ``tcp://host:port``, ``host:port``,
``tls://host:port``, ``unix:/path``, ``sim:``
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlencode

from tracer_async.errors import AddressError
from tracer_async.protocol._numbers import RANGES, Range

__all__ = ["Address", "SerialAddress", "SimAddress", "TcpAddress", "UnixAddress", "parse_address"]

_COM_PORT = re.compile(r"COM\d+", re.IGNORECASE)
_HOST_PORT = re.compile(r"[^/?#\s]+:\d+")
# The names of serial ports on Linux, macOS and the BSDs, without the folder they are in.
_PORT_NAME = re.compile(r"(tty|cu|cua|rfcomm)[A-Za-z0-9._-]+")
_IP_ADDRESS = re.compile(r"\d+(\.\d+){3}|localhost")


@dataclass(frozen=True, slots=True)
class SerialAddress:
    """A serial port. The default is 9600 baud, 8N1, as the controllers have it."""

    path: str
    baudrate: int = 9600
    bytesize: Literal[5, 6, 7, 8] = 8
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1
    backend: Literal["auto", "pyserial", "serialx"] = "auto"
    """The package that opens it. "auto" is pyserial-asyncio if that is installed, else serialx."""

    def __str__(self) -> str:
        return f"serial://{_quote(self.path)}{_query(self)}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A serial-to-TCP bridge, with or without TLS."""

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
    """Simulated seconds per second."""
    start_hour: float = 10.0
    """The hour of the simulated day at the start."""
    replay: str = ""
    """The path of a recording. The controller then answers as in the recording, and the options above mean nothing."""
    speed: float = 1.0
    """How many times faster than then a recording answers. 0 is without delays."""

    def __str__(self) -> str:
        return f"sim:{_query(self)}"


Address = SerialAddress | TcpAddress | UnixAddress | SimAddress


def parse_address(url: str) -> Address:
    """Parse *url*. Raises AddressError if it is not a valid address, TypeError if it is not a str."""
    if not isinstance(url, str):
        raise TypeError(f"a URL must be a str, not {type(url).__name__}")
    url = url.strip()
    try:
        return _parse(url)
    except ValueError as error:
        raise AddressError(f"{url!r} is not the address of a controller: {error}") from None


def _parse(url: str) -> Address:
    control = next((character for character in url if character < " " or character == "\x7f"), None)
    if control is not None:  # never dropped silently: the address would be another one than the user sees
        raise ValueError(f"it contains the control character {control!r}")
    # Windows also has the prefix \\.\ for serial ports. It needs it for those above COM9.
    if url.startswith(("/", "\\\\.\\")) or _COM_PORT.fullmatch(url):
        return SerialAddress(url)
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in ("serial", "tcp", "tls", "unix", "sim"):
        if "://" in url or not _HOST_PORT.fullmatch(url):
            raise ValueError(_without_scheme(url))
        scheme, rest = "tcp", f"//{url}"
    rest, hash_sign, fragment = rest.partition("#")
    if hash_sign:
        raise ValueError(f"it ends with {'#' + fragment!r}; write %23 for a # in a path")
    rest, _, query = rest.partition("?")
    options = _options(query)
    if scheme == "serial":
        return SerialAddress(_path(rest, "serial:///dev/ttyUSB0"), **_convert(options, _SERIAL))
    if scheme == "unix":
        _convert(options, {})
        return UnixAddress(_path(rest, "unix:/run/tracer.sock"))
    if scheme == "sim":
        if rest.strip("/"):
            raise ValueError("a simulated controller has no host or path")
        return SimAddress(**_convert(options, _SIM))
    _convert(options, {})
    host, port = _host_and_port(scheme, rest)
    return TcpAddress(host, port, tls=scheme == "tls")


def _without_scheme(url: str) -> str:
    """Return the error text for a URL without a known scheme. It suggests what was probably meant."""
    if not url:
        return "it is empty"
    if "://" in url:
        return f"there is no scheme {url.partition('://')[0]!r}; the schemes are serial, tcp, tls, unix and sim"
    if _PORT_NAME.fullmatch(url):
        return f"write the serial port with its folder: /dev/{url}"
    if _IP_ADDRESS.fullmatch(url):
        return f"the port is missing; write {url}:8088 if the bridge listens on port 8088"
    if "/" in url:
        return "the path of a serial port begins with /, such as /dev/ttyUSB0"
    host, colon, port = url.rpartition(":")
    if colon and host and "?" not in url:
        return f"the port must be a whole number from 1 to 65535, not {port!r}"
    return f"write {url}:8088 for a bridge (host and port), or a path such as /dev/ttyUSB0 for a serial port"


def _path(rest: str, example: str) -> str:
    # The path is absolute, so "unix:/x" and "unix:///x" mean the same.
    path = unquote(rest.removeprefix("//"))
    if not path:
        raise ValueError(f"the path is missing; write {example}, for example")
    if any(character < " " or character == "\x7f" for character in path):
        raise ValueError("its path contains a control character")
    return path


def _host_and_port(scheme: str, rest: str) -> tuple[str, int]:
    right = f"write {scheme}://HOST:PORT"
    if not rest.startswith("//"):
        raise ValueError(f"the // is missing; {right}")
    netloc = rest.removeprefix("//").removesuffix("/")
    if "@" in netloc or "/" in netloc:
        raise ValueError(f"it contains more than a host and a port; {right}")
    if any(character.isspace() for character in netloc):
        raise ValueError("it contains a space")
    host, port = netloc, ""
    if not netloc.endswith("]"):
        host, _, port = netloc.rpartition(":")
        if not host and not netloc.startswith(":"):
            host, port = netloc, ""
    brackets = host.startswith("["), host.endswith("]")
    if brackets[0] != brackets[1] or (":" in host and not all(brackets)):
        raise ValueError(f"an IPv6 address must be in brackets, such as {scheme}://[fe80::1]:8088")
    if all(brackets):
        host = host[1:-1]
        ip_address(host)
    if not host:
        raise ValueError(f"the host is missing; {right}")
    if not port:
        raise ValueError(f"the port is missing; {right}")
    if not (port.isascii() and port.isdigit() and len(port) <= 9 and 1 <= int(port) <= 65535):
        raise ValueError(f"the port must be a whole number from 1 to 65535, not {port!r}")
    # The zone of an IPv6 address is the name of a network interface, which may have capital letters.
    host, percent, zone = host.partition("%")
    return host.lower() + percent + zone, int(port)


# Options. Each kind of address has its own, checked with the ranges that the rest of the library uses.


def _options(query: str) -> dict[str, str]:
    # Strict parsing refuses an empty query, which is valid here.
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(f"its options must be NAME=VALUE&NAME=VALUE, not {query!r}") from None
    options: dict[str, str] = {}
    for name, text in pairs:
        if name in options:
            raise ValueError(f"the option {name} is given twice")
        options[name] = text
    return options


# Plain decimals only: float() would also accept "nan", "inf" and "1_0", and int() digits of other scripts.
_is_number = re.compile(r"[+-]?([0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?").fullmatch
_is_whole = re.compile(r"[+-]?[0-9]{1,30}").fullmatch


def _number(name: str, limits: Range) -> Callable[[str], float]:
    def convert(text: str) -> float:
        if not (_is_whole if limits.whole else _is_number)(text):
            kind = "a whole number" if limits.whole else "a number"
            raise ValueError(f"{name} must be {kind}, {limits}, not {text!r}")
        value = int(text) if limits.whole else float(text)
        if value not in limits:
            raise ValueError(f"{name} must be {limits}, not {text}")
        return value

    return convert


def _one_of(name: str, *choices: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}, not {text!r}")
        return text

    return convert


_SERIAL_RANGES = {
    "baudrate": Range(where="serial: URL", low=1, high=10_000_000, whole=True, unit="baud"),
    "bytesize": Range(where="serial: URL", low=5, high=8, whole=True, unit="bits"),
    "stopbits": Range(where="serial: URL", low=1, high=2, whole=True, words="1 or 2"),
}

# How the text of each option becomes its value.
_Options = Mapping[str, Callable[[str], Any]]
_SERIAL: _Options = {
    **{name: _number(name, limits) for name, limits in _SERIAL_RANGES.items()},
    "parity": _one_of("parity", "N", "E", "O"),
    "backend": _one_of("backend", "auto", "pyserial", "serialx"),
}
_SIM: _Options = {
    **{name: _number(name, RANGES[name]) for name in ("seed", "time_scale", "start_hour", "speed")},
    "replay": str,
}


def _convert(options: dict[str, str], known: _Options) -> dict[str, Any]:
    for name in options:
        if name not in known:
            has = f"the options are {', '.join(known)}" if known else "this kind of address has no options"
            raise ValueError(f"it has an unknown option {name!r}; {has}")
    return {name: known[name](text) for name, text in options.items()}


def _quote(path: str) -> str:
    """Escape the characters in *path* that would end it within a URL."""
    return path.replace("%", "%25").replace("?", "%3F").replace("#", "%23")


def _query(address: SerialAddress | SimAddress) -> str:
    """Return the options that differ from their defaults, as the query of a URL."""
    options = {f.name: getattr(address, f.name) for f in fields(address) if f.name != "path"}
    changed = {f.name: options[f.name] for f in fields(address) if f.name in options and options[f.name] != f.default}
    texts = {
        name: str(value).removesuffix(".0") if isinstance(value, float) else str(value)
        for name, value in changed.items()
    }
    return "?" + urlencode(texts, safe="/") if texts else ""
