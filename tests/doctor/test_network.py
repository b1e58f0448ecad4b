"""The checks of a network connection: names, refusals, TLS, bridges that close the connection."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from tests.doctor.lines import bridge, complaints, controller, ser2net
from tracer_async import TracerClient
from tracer_async.doctor import Severity, diagnose
from tracer_async.simulator import serve_pty, serve_tcp, serve_unix


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A healthy controller."""
    answer = controller()
    while data := await reader.read(4096):
        writer.write(answer(data))


def contexts(*names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of a server with a certificate for *names*, and of a client that trusts its issuer."""
    issuer = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(*names).configure_cert(server)
    client = ssl.create_default_context()
    issuer.configure_trust(client)
    return server, client


async def test_a_port_on_which_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    assert [found.id for found in await diagnose(url)] == ["net-refused"]


async def test_a_name_that_nobody_knows() -> None:
    findings = await diagnose("tcp://no-such-host.invalid:8088")
    assert [found.id for found in findings] == ["net-name-unknown"]
    assert "no-such-host.invalid" in findings[0].evidence


async def test_an_address_with_an_interface_that_does_not_exist() -> None:
    (found,) = await diagnose("tcp://[fe80::1%nosuch0]:8088")
    assert (found.id, found.severity) == ("net-failed", Severity.ERROR)
    assert "fe80::1%nosuch0" in found.evidence
    assert "interface" in found.evidence


async def test_a_name_that_is_known_is_shown_with_its_address() -> None:
    async with serve_tcp() as url:
        findings = await diagnose(url.replace("127.0.0.1", "localhost"), seconds=0)
    assert complaints(findings) == []
    assert findings[0].id == "net-name"
    assert "127.0.0.1" in findings[0].evidence


@pytest.mark.slow
async def test_a_host_that_does_not_reply() -> None:
    """A listener whose queue is full: the kernel discards further connection attempts."""
    with socket.socket() as listener, ExitStack() as clients:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        findings = await diagnose(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    assert [found.id for found in findings] == ["net-timeout"]


def test_a_host_without_a_route(require: Callable[[str], str]) -> None:
    """In a network namespace of its own, which has no route at all."""
    program = "import asyncio; from tracer_async.doctor import diagnose; print(asyncio.run(diagnose({!r}))[0].id)"
    isolated = [require("unshare"), "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system does not allow a network namespace")
    done = subprocess.run(
        [*isolated, sys.executable, "-c", program.format("tcp://192.0.2.1:8088")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout.strip() == "net-no-route"


@pytest.mark.parametrize("text", [b"", b"Port already in use\r\n"], ids=["silently", "with a text"])
async def test_a_bridge_that_closes_the_connection_at_once(text: bytes) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)

    async with bridge(close) as url:
        findings = await diagnose(url, seconds=0.3)
    assert complaints(findings) == ["net-closed"]
    assert text.decode().strip() in findings[-1].evidence
    assert "does not allow this computer" in findings[-1].advice


async def test_a_bridge_that_closes_the_connection_after_a_request() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)

    async with bridge(close) as url:
        findings = await diagnose(url, seconds=0)
    assert complaints(findings) == ["net-closed"]
    assert "after a request" in findings[-1].evidence


async def test_ser2net_that_serves_another_client(tmp_path: Path, require: Callable[[str], str]) -> None:
    async with (
        serve_pty() as device,
        ser2net(require("ser2net"), tmp_path, device, max_connections="1") as url,
        TracerClient(url, start_offline=True, backoff=(0.01, 0.2)) as first,
    ):
        await first.read()
        findings = await diagnose(url, seconds=0.5)
    assert complaints(findings) == ["net-closed"]
    assert "in use" in findings[-1].evidence


# TLS.


async def test_a_tls_port_with_a_tcp_url() -> None:
    server, _ = contexts("127.0.0.1")
    async with bridge(serve, ssl=server) as url:
        assert complaints(await diagnose(url, seconds=0)) == ["net-tls-expected"]


async def test_a_plain_port_with_a_tls_url() -> None:
    async with bridge(serve) as url:
        findings = await diagnose(url.replace("tcp:", "tls:"), seconds=0)
    assert complaints(findings) == ["net-no-tls"]
    assert findings[-1].evidence == "the controller answers there without TLS"
    assert findings[-1].advice == "Write tcp:// instead of tls://."


async def test_a_web_server_without_tls_with_a_tls_url() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with bridge(refuse) as url:
        findings = await diagnose(url.replace("tcp:", "tls:"), seconds=0)
    assert complaints(findings) == ["net-no-tls"]


async def test_a_certificate_that_is_not_trusted() -> None:
    server, _ = contexts("127.0.0.1")
    async with bridge(serve, ssl=server) as url:
        findings = await diagnose(url.replace("tcp:", "tls:"), seconds=0)
    assert complaints(findings) == ["net-tls-failed"]
    assert "TLS failed" not in findings[-1].evidence


async def test_a_certificate_for_another_host() -> None:
    server, client = contexts("example.org")
    async with bridge(serve, ssl=server) as url:
        findings = await diagnose(url.replace("tcp:", "tls:"), seconds=0, ssl_context=client)
    assert complaints(findings) == ["net-tls-failed"]
    assert "127.0.0.1" in findings[-1].evidence


async def test_a_healthy_line_behind_tls() -> None:
    server, client = contexts("127.0.0.1")
    async with bridge(serve, ssl=server) as url:
        assert complaints(await diagnose(url.replace("tcp:", "tls:"), seconds=0, ssl_context=client)) == []


# Unix sockets.


async def test_a_unix_socket_that_does_not_exist(tmp_path: Path) -> None:
    (found,) = await diagnose(f"unix:{tmp_path}/none")
    assert (found.id, found.title, found.evidence) == ("port-missing", "no such socket", f"{tmp_path}/none")
    assert found.advice == "Start the program that listens on it."


async def test_a_unix_socket_on_which_nothing_listens(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as unused:
        unused.bind(os.fspath(path))
    assert [found.id for found in await diagnose(f"unix:{path}")] == ["net-refused"]


async def test_a_healthy_line_behind_a_unix_socket(tmp_path: Path) -> None:
    async with serve_unix(path=tmp_path / "socket") as url:
        assert complaints(await diagnose(url, seconds=0)) == []
