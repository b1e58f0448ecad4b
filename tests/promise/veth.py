"""Two network namespaces and a cable between them that a test can unplug."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_CLONE_NEWNET = 0x40000000
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_OURS, _THEIRS, _THEIR_MAC = "10.77.0.1", "10.77.0.2", "02:00:00:00:00:02"


class Cable:
    """Belongs to the thread that made it. New sockets of this thread are at the near end."""

    def __init__(self) -> None:
        self._near = _new_namespace()
        _ip(["link", "add", "near", "type", "veth", "peer", "name", "far", "address", _THEIR_MAC])
        _ip(["addr", "add", f"{_OURS}/24", "dev", "near"])
        _ip(["link", "set", "near", "up"])
        # Without this the kernel keeps packets until the address is resolved, and sends them after the outage.
        _ip(["neigh", "replace", _THEIRS, "lladdr", _THEIR_MAC, "dev", "near", "nud", "permanent"])
        self._far = _new_namespace()
        with self._at(self._near):
            _ip(["link", "set", "far", "netns", f"/proc/self/fd/{self._far}"], self._far)
        _ip(["addr", "add", f"{_THEIRS}/24", "dev", "far"])
        _ip(["link", "set", "far", "up"])
        _enter(self._near)

    def listen(self) -> socket.socket:
        """Return a listener at the far end."""
        with self._at(self._far):
            listener = socket.create_server((_THEIRS, 0))
        listener.setblocking(False)
        return listener

    def unplug(self) -> None:
        """Drop everything that either side sends from now on, without notice to either side."""
        with self._at(self._far):
            _ip(["link", "set", "far", "down"])

    def plug_in(self) -> None:
        """End the outage."""
        with self._at(self._far):
            _ip(["link", "set", "far", "up"])

    def close(self) -> None:
        os.close(self._near)
        os.close(self._far)

    @contextmanager
    def _at(self, namespace: int) -> Iterator[None]:
        _enter(namespace)
        try:
            yield
        finally:
            _enter(self._near if namespace == self._far else self._far)


@contextmanager
def cable() -> Iterator[Cable]:
    """A cable for the running thread. Skips the test if the system does not permit it."""
    if sys.platform != "linux" or not shutil.which("ip", path=_PATH):
        pytest.skip("network namespaces need Linux and iproute2")
    made = Cable()
    try:
        yield made
    finally:
        made.close()


def _ip(arguments: list[str], *descriptors: int) -> None:
    subprocess.run(["ip", *arguments], check=True, pass_fds=descriptors, env={**os.environ, "PATH": _PATH})


def _system_call(name: str, *arguments: int) -> None:
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _new_namespace() -> int:
    try:
        _system_call("unshare", _CLONE_NEWNET)
    except OSError as error:
        pytest.skip(f"no network namespace can be made: {error}")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _enter(namespace: int) -> None:
    _system_call("setns", namespace, _CLONE_NEWNET)
