"""Each way in which a link cannot be opened is an error of its own, with a sentence that says what to do."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.client.test_client import open_files
from tests.peer import Peer
from tracer_async import (
    AddressError,
    ConnectionState,
    HostNotFoundError,
    LinkError,
    LinkRefusedError,
    LinkTimeoutError,
    MissingExtraError,
    PortBusyError,
    PortNotFoundError,
    PortPermissionError,
    TlsError,
    TracerClient,
)
from tracer_async.simulator import SimulatedTracer, open_in_process, serve_pty, serve_tcp
from tracer_async.simulator._port import SimulatedPort
from tracer_async.transport import opening

posix = pytest.mark.skipif(sys.platform == "win32", reason="ports and their errors are POSIX's here")
backends = pytest.mark.parametrize("backend", ["pyserial", "serialx"])


async def fails(url: object, error: type[LinkError], *words: str, **options: Any) -> LinkError:
    """Assert that opening *url* raises *error*, naming the address and *words*, and leaves nothing open."""
    before = open_files()
    client = TracerClient(url, **options)  # type: ignore[arg-type]
    with pytest.raises(LinkError) as caught:
        await client.open()
    assert type(caught.value) is error
    assert client.url in str(caught.value)
    assert client.state is ConnectionState.CLOSED
    for word in words:
        assert word in str(caught.value)
    for _ in range(100):
        if open_files() <= before:
            break
        await asyncio.sleep(0.001)
    assert open_files() <= before
    return caught.value


@posix
@backends
async def test_no_such_port(backend: str) -> None:
    error = await fails(f"serial:///dev/no-such-port?backend={backend}", PortNotFoundError, "plugged in")
    assert isinstance(error, FileNotFoundError)


@posix
@backends
async def test_a_file_that_is_no_port(backend: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    await fails(f"serial://{file}?backend={backend}", PortNotFoundError, "not a serial port")


@posix
@backends
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
async def test_no_permission(backend: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root, who may do all: the operating system's refusal is put in its place."""
    really_open = os.open

    def refuse(path: Any, *args: Any, **options: Any) -> int:
        if str(path) == "/dev/forbidden":
            raise OSError(code, os.strerror(code), path)
        return really_open(path, *args, **options)

    monkeypatch.setattr("os.open", refuse)
    error = await fails(f"serial:///dev/forbidden?backend={backend}", PortPermissionError, "dialout")
    assert isinstance(error, PermissionError)


@posix
@pytest.mark.parametrize("first", ["pyserial", "serialx"])
@pytest.mark.parametrize("second", ["pyserial", "serialx"])
async def test_a_port_has_one_user_at_a_time(first: str, second: str) -> None:
    async with serve_pty() as url, TracerClient(f"{url}?backend={first}") as tracer:
        await fails(f"{url}?backend={second}", PortBusyError, "another program")
        assert (await tracer.read_realtime()).charging


@posix
@backends
async def test_a_baud_rate_that_the_port_does_not_have(backend: str) -> None:
    async with serve_pty() as url, TracerClient(f"{url}?backend={backend}&baudrate=19200") as tracer:
        assert (await tracer.read_realtime()).charging


async def test_nothing_listens() -> None:
    async with serve_tcp() as url:
        pass
    error = await fails(url, LinkRefusedError, "refused")
    assert isinstance(error, ConnectionRefusedError)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".invalid"])
async def test_no_such_host(host: str) -> None:
    await fails(f"tcp://{host}:8088", HostNotFoundError, "host")


async def test_a_host_that_does_not_say_anything() -> None:
    async def never(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    error = await fails(never, LinkTimeoutError, "within 0.01 s", connect_timeout=0.01)
    assert isinstance(error, TimeoutError)


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), LinkError),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), LinkTimeoutError),
        (
            OSError("could not open port 'COM3': FileNotFoundError(2, 'No such file')"),
            PortNotFoundError,
        ),
        (OSError("could not open port 'COM3': PermissionError(13, 'Access is denied.')"), PortBusyError),
        (KeyError("a fault in one's own factory"), LinkError),
    ],
)
async def test_whatever_a_factory_raises_is_an_error_of_the_tree(raised: Exception, error: type[LinkError]) -> None:
    async def broken(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        raise raised

    assert (await fails(broken, error)).__cause__ is raised


async def test_a_value_that_a_transport_does_not_take_is_an_address_error() -> None:
    async def broken(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        raise ValueError("Not a valid baudrate: 12345")

    with pytest.raises(AddressError, match="12345"):
        await TracerClient(broken).open()


@posix
async def test_no_such_socket(tmp_path: Path) -> None:
    await fails(f"unix:{tmp_path}/none", PortNotFoundError, "no such socket")


@posix
@pytest.mark.parametrize(
    ("backend", "missing", "extra"),
    [
        ("auto", {"serial_asyncio", "serialx"}, "serial"),
        ("pyserial", {"serial_asyncio"}, "serial"),
        ("serialx", {"serialx"}, "serialx"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    backend: str, missing: set[str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: None if name in missing else object())
    with pytest.raises(MissingExtraError, match=rf"pip install 'tracer-async\[{extra}\]'") as caught:
        TracerClient(f"serial:///dev/ttyUSB0?backend={backend}")
    assert caught.value.extra == extra
    assert isinstance(caught.value, ImportError)


@posix
async def test_where_only_serialx_is_installed_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: object() if name == "serialx" else None)
    monkeypatch.setitem(sys.modules, "serial_asyncio", None)
    async with serve_pty() as url, TracerClient(url) as tracer:
        assert (await tracer.read_realtime()).charging


async def test_ones_own_transport_factory() -> None:
    simulated = SimulatedTracer()

    async def bring(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        return await open_in_process(protocol, simulated)

    async with TracerClient(bring) as tracer:
        await tracer.set_load(False)
        assert not simulated.load_on
        assert tracer.url == "bring"


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def bridge(authority: trustme.CA, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A simulated controller behind TLS, with a certificate for the name that the test asks for."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    name, expires = getattr(request, "param", ("localhost", None))
    authority.issue_cert(name, not_after=expires).configure_cert(server_side)
    server = await asyncio.start_server(answer, "localhost", 0, ssl=server_side)
    yield f"tls://localhost:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    port = SimulatedPort(SimulatedTracer())
    try:
        while chunk := await reader.read(4096):
            for reply in port.feed(chunk):
                writer.write(reply)
    finally:
        writer.close()


async def test_tls_with_a_certificate_that_is_trusted(bridge: str, authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with TracerClient(bridge, ssl_context=context) as tracer:
        assert (await tracer.read_realtime()).charging


async def test_tls_with_a_certificate_that_nobody_vouches_for(bridge: str) -> None:
    await fails(bridge, TlsError, "certificate")


@pytest.mark.parametrize(
    ("bridge", "words"),
    [
        (("other.example", None), "localhost"),
        (("localhost", datetime(2020, 1, 1, tzinfo=UTC)), "expired"),
    ],
    indirect=["bridge"],
)
async def test_tls_with_a_certificate_for_another_host_or_time(bridge: str, words: str, authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    await fails(bridge, TlsError, words, ssl_context=context)


async def test_tls_with_a_bridge_that_speaks_plain_text(peer: Peer) -> None:
    peer.on_connect = b"ser2net port 8088\r\n"
    await fails(peer.url.replace("tcp", "tls"), TlsError, "TLS failed")


async def test_tls_with_a_bridge_that_waits_for_plain_bytes() -> None:
    async with serve_tcp() as url:
        await fails(url.replace("tcp", "tls"), LinkTimeoutError, "within", connect_timeout=0.1)


@posix
@backends
async def test_a_port_whose_opening_is_cancelled_is_closed_again(backend: str) -> None:
    async with serve_pty() as url:
        before = open_files()
        for _ in range(5):
            opening_ = asyncio.create_task(TracerClient(f"{url}?backend={backend}").open())
            await asyncio.sleep(0)
            opening_.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening_
        async with TracerClient(f"{url}?backend={backend}", start_offline=True) as tracer:
            assert (await tracer.read_realtime()).charging
        for _ in range(1000):
            if open_files() <= before:
                break
            await asyncio.sleep(0.001)
        assert open_files() <= before
