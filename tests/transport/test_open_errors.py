"""Each sentence of an error of opening fits the kind of address that it is about."""

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

posix = pytest.mark.skipif(sys.platform == "win32", reason="ports and their errors are POSIX's here")
SERIAL_ADVICE = ("dialout", "cable", "serial port")


async def error_of(url: str, **options: Any) -> LinkError:
    with pytest.raises(LinkError) as caught:
        await TracerClient(url, **options).open()
    return caught.value


def refusing(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@posix
@pytest.mark.parametrize("backend", ["pyserial", "serialx"])
async def test_a_folder_is_called_a_folder(backend: str, tmp_path: Path) -> None:
    error = await error_of(f"serial://{tmp_path}?backend={backend}")
    assert type(error) is PortNotFoundError
    assert "is a folder, not a serial port" in str(error)
    assert "Errno" not in str(error)


@posix
async def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(path))
    error = await error_of(f"unix:{path}")
    assert type(error) is LinkRefusedError
    assert "is the program running that listens there?" in str(error)
    assert "bridge" not in str(error)


@posix
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_a_socket_that_may_not_be_used_gets_no_advice_for_serial_ports(code: int) -> None:
    """The tests may run as root, who may use every socket."""
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


def test_a_name_that_cannot_be_looked_up_now_is_not_called_wrong() -> None:
    error = explain("tcp://bridge:8088", socket.gaierror(socket.EAI_AGAIN, "try again"), 5.0)
    assert type(error) is HostNotFoundError
    assert "Is the network up?" in str(error)
    assert "spelled" not in str(error)


async def test_tls_with_a_bridge_that_waits_is_not_only_called_off() -> None:
    async with serve_tcp() as url:
        error = await error_of(url.replace("tcp", "tls"), connect_timeout=0.1)
    assert type(error) is LinkTimeoutError
    assert "speak TLS" in str(error)
    assert "tcp://" in str(error)


async def test_tls_with_a_bridge_that_sends_text(peer: Peer) -> None:
    peer.on_connect = b"ser2net port 8088\r\n"
    error = await error_of(peer.url.replace("tcp", "tls"))
    assert type(error) is TlsError
    assert "speak TLS" in str(error)


@pytest.mark.parametrize("raised", [ConnectionResetError(), ssl.SSLEOFError(8, "[SSL: UNEXPECTED_EOF_WHILE_READING]")])
def test_tls_with_a_bridge_that_hangs_up(raised: OSError) -> None:
    assert "speak TLS" in str(explain("tls://bridge:1", raised, 5.0))


def test_a_plain_bridge_that_hangs_up_is_not_asked_for_tls() -> None:
    assert "TLS" not in str(explain("tcp://bridge:1", ConnectionResetError(), 5.0))


async def test_a_connection_without_tls_that_times_out_says_nothing_of_tls() -> None:
    async def never(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        raise TimeoutError

    with pytest.raises(LinkTimeoutError) as caught:
        await TracerClient(never).open()
    assert "TLS" not in str(caught.value)
    assert "TLS" not in str(explain("tcp://bridge:1", TimeoutError(), 5.0))
