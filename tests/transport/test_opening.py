"""Each reason why a connection cannot be opened has its own error, whose text says what to do."""

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

from tests.descriptors import open_files
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
from tracer_async.transport import _opening

posix = pytest.mark.skipif(sys.platform == "win32", reason="these ports and errors are those of POSIX")
backends = pytest.mark.parametrize("backend", ["pyserial", "serialx"])


async def check_open_fails(url: object, error: type[LinkError], *words: str, **options: Any) -> LinkError:
    """Check that opening *url* raises *error*, naming the address and *words*, and leaves no descriptor open."""
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
async def test_a_missing_serial_port_raises_port_not_found_error(backend: str) -> None:
    error = await check_open_fails(f"serial:///dev/no-such-port?backend={backend}", PortNotFoundError, "plugged in")
    assert isinstance(error, FileNotFoundError)


@posix
@backends
async def test_a_file_that_is_not_a_serial_port_raises_port_not_found_error(backend: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    await check_open_fails(f"serial://{file}?backend={backend}", PortNotFoundError, "not a serial port")


@posix
@backends
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
async def test_a_port_without_permission_raises_port_permission_error(
    backend: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The open call is replaced, because tests that run as root are never refused."""
    really_open = os.open

    def refuse(path: Any, *args: Any, **options: Any) -> int:
        if str(path) == "/dev/forbidden":
            raise OSError(code, os.strerror(code), path)
        return really_open(path, *args, **options)

    monkeypatch.setattr("os.open", refuse)
    error = await check_open_fails(f"serial:///dev/forbidden?backend={backend}", PortPermissionError, "dialout")
    assert isinstance(error, PermissionError)


@posix
@pytest.mark.parametrize("call", ["tcgetattr", "tcsetattr"])
async def test_the_error_for_a_port_that_cannot_be_configured_has_the_reason_of_the_system(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is replaced, because a pseudo-terminal accepts everything."""
    import termios

    def fail(*_: Any) -> None:
        raise termios.error(errno.EIO, os.strerror(errno.EIO))

    async with serve_pty() as url:
        monkeypatch.setattr(termios, call, fail)
        await check_open_fails(f"{url}?backend=pyserial", LinkError, os.strerror(errno.EIO))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems set the baud rate with another call")
async def test_a_baud_rate_that_the_adapter_lacks_raises_address_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is replaced, because a pseudo-terminal accepts any baud rate."""
    import fcntl

    really_call = fcntl.ioctl
    set_rate = 0x402C542B  # TCSETS2

    def refuse(descriptor: Any, request: int, *args: Any) -> Any:
        if request == set_rate:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return really_call(descriptor, request, *args)

    async with serve_pty() as url:
        before = open_files()
        monkeypatch.setattr(fcntl, "ioctl", refuse)
        with pytest.raises(AddressError, match="12345"):
            await TracerClient(f"{url}?backend=pyserial&baudrate=12345").open()
        assert open_files() <= before


@posix
@pytest.mark.parametrize("first", ["pyserial", "serialx"])
@pytest.mark.parametrize("second", ["pyserial", "serialx"])
async def test_a_second_open_of_a_serial_port_raises_port_busy_error(first: str, second: str) -> None:
    async with serve_pty() as url, TracerClient(f"{url}?backend={first}") as tracer:
        await check_open_fails(f"{url}?backend={second}", PortBusyError, "let both connect to `tracer-async share`")
        assert (await tracer.read_realtime()).charging


@posix
@backends
async def test_a_pty_accepts_any_baud_rate(backend: str) -> None:
    async with serve_pty() as url, TracerClient(f"{url}?backend={backend}&baudrate=19200") as tracer:
        assert (await tracer.read_realtime()).charging


async def test_a_closed_tcp_port_raises_link_refused_error() -> None:
    async with serve_tcp() as url:
        pass
    error = await check_open_fails(url, LinkRefusedError, "refused")
    assert isinstance(error, ConnectionRefusedError)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".invalid"])
async def test_an_unknown_host_raises_host_not_found_error(host: str) -> None:
    await check_open_fails(f"tcp://{host}:8088", HostNotFoundError, "host")


async def test_an_open_that_never_finishes_raises_link_timeout_error() -> None:
    async def never(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    error = await check_open_fails(never, LinkTimeoutError, "within 0.01 s", connect_timeout=0.01)
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
        (KeyError("an error in the factory itself"), LinkError),
    ],
)
async def test_any_error_of_a_transport_factory_becomes_a_link_error(raised: Exception, error: type[LinkError]) -> None:
    async def broken(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        raise raised

    assert (await check_open_fails(broken, error)).__cause__ is raised


async def test_a_value_error_of_a_transport_factory_becomes_an_address_error() -> None:
    async def broken(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        raise ValueError("Not a valid baudrate: 12345")

    with pytest.raises(AddressError, match="12345"):
        await TracerClient(broken).open()


@posix
async def test_a_missing_unix_socket_raises_port_not_found_error(tmp_path: Path) -> None:
    await check_open_fails(f"unix:{tmp_path}/none", PortNotFoundError, "no such socket")


@posix
@pytest.mark.parametrize(
    ("backend", "missing", "extra"),
    [
        ("auto", {"serial_asyncio", "serialx"}, "serial"),
        ("pyserial", {"serial_asyncio"}, "serial"),
        ("serialx", {"serialx"}, "serialx"),
    ],
)
def test_a_missing_serial_package_raises_missing_extra_error_with_the_extra(
    backend: str, missing: set[str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_opening, "find_spec", lambda name: None if name in missing else object())
    with pytest.raises(MissingExtraError, match=rf"pip install 'tracer-async\[{extra}\]'") as caught:
        TracerClient(f"serial:///dev/ttyUSB0?backend={backend}")
    assert caught.value.extra == extra
    assert isinstance(caught.value, ImportError)


@posix
async def test_backend_auto_uses_serialx_if_only_serialx_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_opening, "find_spec", lambda name: object() if name == "serialx" else None)
    monkeypatch.setitem(sys.modules, "serial_asyncio", None)
    async with serve_pty() as url, TracerClient(url) as tracer:
        assert (await tracer.read_realtime()).charging


async def test_a_custom_transport_factory_is_used() -> None:
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
    """A simulated controller behind TLS. The test selects the host name and the expiry time of its certificate."""
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


async def test_tls_with_a_trusted_certificate_connects(bridge: str, authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with TracerClient(bridge, ssl_context=context) as tracer:
        assert (await tracer.read_realtime()).charging


async def test_tls_with_an_untrusted_certificate_raises_tls_error(bridge: str) -> None:
    await check_open_fails(bridge, TlsError, "certificate")


@pytest.mark.parametrize(
    ("bridge", "words"),
    [
        (("other.example", None), "localhost"),
        (("localhost", datetime(2020, 1, 1, tzinfo=UTC)), "expired"),
    ],
    indirect=["bridge"],
)
async def test_tls_with_a_wrong_host_or_expired_certificate_raises_tls_error(
    bridge: str, words: str, authority: trustme.CA
) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    await check_open_fails(bridge, TlsError, words, ssl_context=context)


async def test_tls_to_a_bridge_that_sends_plain_text_raises_tls_error(peer: Peer) -> None:
    peer.on_connect = b"ser2net port 8088\r\n"
    await check_open_fails(peer.url.replace("tcp", "tls"), TlsError, "TLS failed")


async def test_tls_to_a_bridge_that_never_answers_raises_link_timeout_error() -> None:
    async with serve_tcp() as url:
        await check_open_fails(url.replace("tcp", "tls"), LinkTimeoutError, "within", connect_timeout=0.1)


@posix
@backends
async def test_a_cancelled_open_closes_the_port(backend: str) -> None:
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
