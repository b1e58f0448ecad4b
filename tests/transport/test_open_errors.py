"""The advice in the error of a failed open fits the kind of the address."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.peer import Peer
from tracer_async import (
    HostNotFoundError,
    LinkError,
    LinkRefusedError,
    LinkTimeoutError,
    PortNotFoundError,
    PortPermissionError,
    TlsError,
    TracerClient,
)
from tracer_async.simulator import serve_tcp
from tracer_async.transport._open_errors import explain

posix = pytest.mark.skipif(sys.platform == "win32", reason="these ports and errors are those of POSIX")
SERIAL_ADVICE = ("dialout", "cable", "serial port")


async def error_of(url: str, **options: Any) -> LinkError:
    with pytest.raises(LinkError) as caught:
        await TracerClient(url, **options).open()
    return caught.value


def refusing(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@posix
@pytest.mark.parametrize("backend", ["pyserial", "serialx"])
async def test_the_error_for_a_folder_says_that_it_is_a_folder(backend: str, tmp_path: Path) -> None:
    error = await error_of(f"serial://{tmp_path}?backend={backend}")
    assert type(error) is PortNotFoundError
    assert "is a folder, not a serial port" in str(error)
    assert "Errno" not in str(error)


@posix
async def test_a_unix_socket_without_a_listener_raises_link_refused_error(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(path))
    error = await error_of(f"unix:{path}")
    assert type(error) is LinkRefusedError
    assert "is the program that listens on it running?" in str(error)
    assert "bridge" not in str(error)


@posix
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_a_unix_socket_without_permission_gets_no_advice_for_serial_ports(code: int) -> None:
    """The error is made here, because tests that run as root have permission for every socket."""
    error = explain("unix:///run/tracer.sock", refusing(code), 5.0)
    assert type(error) is PortPermissionError
    assert "write permission" in str(error)
    for words in SERIAL_ADVICE:
        assert words not in str(error)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.ENOENT, errno.EBUSY, errno.EAGAIN])
@pytest.mark.parametrize("url", ["tcp://bridge:8088", "tls://bridge:8088"])
def test_a_network_connection_gets_no_advice_for_serial_ports(url: str, code: int) -> None:
    error = explain(url, refusing(code), 5.0)
    assert type(error) is LinkError
    for words in SERIAL_ADVICE:
        assert words not in str(error)


def test_a_temporary_failure_of_name_resolution_does_not_blame_the_name() -> None:
    error = explain("tcp://bridge:8088", socket.gaierror(socket.EAI_AGAIN, "try again"), 5.0)
    assert type(error) is HostNotFoundError
    assert "Is the network up?" in str(error)
    assert "spelled" not in str(error)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "localhost"])
@pytest.mark.parametrize("raised", [ConnectionRefusedError(errno.ECONNREFUSED, "refused"), TimeoutError()], ids=repr)
def test_the_advice_for_this_computer_is_about_a_program_and_not_about_a_device(host: str, raised: OSError) -> None:
    text = str(explain(f"tcp://{host}:8088", raised, 5.0))
    assert "program" in text
    for words in ("bridge", "device", "network"):
        assert words not in text


@pytest.mark.parametrize("host", ["192.0.2.1", "[fe80::1%eth0]", "bridge", "localhost.example"])
def test_the_advice_for_another_computer_is_about_the_bridge(host: str) -> None:
    text = str(explain(f"tcp://{host}:8088", ConnectionRefusedError(errno.ECONNREFUSED, "refused"), 5.0))
    assert "bridge" in text
    assert "this computer" not in text


async def test_a_tls_timeout_also_asks_whether_the_bridge_speaks_tls() -> None:
    async with serve_tcp() as url:
        error = await error_of(url.replace("tcp", "tls"), connect_timeout=0.1)
    assert type(error) is LinkTimeoutError
    assert "speak TLS" in str(error)
    assert "tcp://" in str(error)


async def test_text_instead_of_a_tls_handshake_raises_tls_error(peer: Peer) -> None:
    peer.on_connect = b"ser2net port 8088\r\n"
    error = await error_of(peer.url.replace("tcp", "tls"))
    assert type(error) is TlsError
    assert "speak TLS" in str(error)


@pytest.mark.parametrize("raised", [ConnectionResetError(), ssl.SSLEOFError(8, "[SSL: UNEXPECTED_EOF_WHILE_READING]")])
def test_a_connection_closed_during_the_tls_handshake_asks_whether_the_bridge_speaks_tls(raised: OSError) -> None:
    assert "speak TLS" in str(explain("tls://bridge:1", raised, 5.0))


def test_a_plain_connection_that_is_closed_gets_no_advice_about_tls() -> None:
    assert "TLS" not in str(explain("tcp://bridge:1", ConnectionResetError(), 5.0))


async def test_a_timeout_without_tls_gets_no_advice_about_tls() -> None:
    async def never(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        raise TimeoutError

    with pytest.raises(LinkTimeoutError) as caught:
        await TracerClient(never).open()
    assert "TLS" not in str(caught.value)
    assert "TLS" not in str(explain("tcp://bridge:1", TimeoutError(), 5.0))
