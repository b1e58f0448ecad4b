"""The blocking client connects to a host that has several addresses."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from tests.promise.stamping_lines import line_of
from tests.sync.lines import checked, client
from tracer_async import LinkError
from tracer_async.sync import TracerClient

# No kernel has a family with this number. A kernel without IPv6 refuses an IPv6 socket in the same way.
MISSING = (9999, socket.SOCK_STREAM, 0, "", ("::1", 1))


def names(monkeypatch: pytest.MonkeyPatch, *addresses: Any) -> None:
    """Let every name have these addresses."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [*addresses])


def tcp(host: str, port: int) -> Any:
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


def test_an_address_family_that_the_kernel_lacks_does_not_end_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    with line_of("tcp") as line:
        port = int(line.url.rpartition(":")[2])
        names(monkeypatch, MISSING, tcp("127.0.0.1", port))
        with client(line._replace(url=f"name.example:{port}")) as tracer:
            checked(line.controller, tracer.read())


def test_an_address_family_that_the_kernel_lacks_does_not_end_an_attempt_that_is_in_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, line_of("tcp") as line:
        waiting = [socket.socket() for _ in range(2)]
        for sock in waiting:  # they fill the queue of the listener, so the next attempt to connect gets no answer
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        port = int(line.url.rpartition(":")[2])
        names(monkeypatch, tcp(*full.getsockname()), MISSING, tcp("127.0.0.1", port))
        with client(line._replace(url=f"name.example:{port}")) as tracer:
            checked(line.controller, tracer.read())
        for sock in waiting:
            sock.close()


def test_if_the_kernel_lacks_every_address_family_the_client_raises_a_link_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names(monkeypatch, MISSING, MISSING)
    with pytest.raises(LinkError) as caught:
        TracerClient("name.example:1").open()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EAFNOSUPPORT
