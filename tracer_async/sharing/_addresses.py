"""The addresses on which a controller is shared: ``tcp://HOST:PORT``, ``unix:PATH``, ``pty:LINK``."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import PurePath
from typing import NamedTuple

from tracer_async.errors import AddressError

__all__ = ["PtyPlace", "TcpPlace", "UnixPlace", "parse_place"]


class TcpPlace(NamedTuple):
    """A TCP port to listen on. Port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can connect. False for a name that is not ``localhost``."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


class UnixPlace(NamedTuple):
    """A Unix socket to listen on."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


class PtyPlace(NamedTuple):
    """A symbolic link to a pseudo-terminal."""

    link: str

    def __str__(self) -> str:
        return f"serial://{self.link}"


def parse_place(text: str) -> TcpPlace | UnixPlace | PtyPlace:
    """Return the address that *text* means. ``HOST:PORT`` is a TCP port. Raises AddressError if it is invalid."""
    kind, colon, rest = text.partition(":")
    if kind in ("unix", "pty") and colon:
        path = rest.removeprefix("//")
        # A pseudo-terminal needs a name that is no folder: its lock has the same one.
        if not path or "\0" in path or (kind == "pty" and PurePath(path).name in ("", "..")):
            raise AddressError(f"{text!r} is not a valid address: write {kind}:PATH")
        return UnixPlace(path) if kind == "unix" else PtyPlace(path)
    host, _, port = text.removeprefix("tcp://").rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and len(port) <= 9) or int(port) > 65535:
        raise AddressError(
            f"{text!r} is not an address to listen on: write HOST:PORT, such as 127.0.0.1:8088 (port 0 takes a free "
            "one), unix:PATH or pty:LINK"
        )
    return TcpPlace(host.removeprefix("[").removesuffix("]"), int(port))
