"""Attacks on the web output by clients that speak HTTP as no browser does: each fails, and the rest goes on."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import socket
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from aiohttp import web

from tests.gateway.web_site import LOAD, OFF, READ, Site, StubHistory, bearer, cookie_of, site, with_tokens
from tracer_async.gateway.web.connections import Connections, network_of

# What clients may not do to a connection


async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, trickle: bytes = b"") -> bytes:
    """Send *trickle* byte by byte, and return what comes until the gateway closes the connection."""

    async def send() -> None:
        for number in range(len(trickle)):
            writer.write(trickle[number : number + 1])
            await asyncio.sleep(0.01)

    sending = asyncio.create_task(send())
    answer = b""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            answer += chunk
    sending.cancel()
    await asyncio.wait([sending])
    writer.close()
    return answer


async def connect(served: Site, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", served.port, **options)


CONNECTIONS = "tracer_async.gateway.web.connections"
ENDLESS = b"X: " + b"a" * 3000


async def test_headers_that_come_byte_by_byte_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{CONNECTIONS}._FIRST_REQUEST_SECONDS", 0.2)
    async with site() as served, asyncio.timeout(30):
        assert await until_closed(*await connect(served), b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + ENDLESS) == b""


async def test_a_second_request_that_comes_byte_by_byte_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{CONNECTIONS}._IDLE_SECONDS", 0.3)
    async with site() as served, asyncio.timeout(30):
        reader, writer = await connect(served)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"}")
        assert await until_closed(reader, writer, b"GET / HTTP/1.1\r\n" + ENDLESS) == b""


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{CONNECTIONS}._IDLE_SECONDS", 0.1)
    async with site() as served, asyncio.timeout(30):
        reader, writer = await connect(served)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await until_closed(reader, writer)).count(b"HTTP/1.1 200 ") == 1


async def test_a_body_that_comes_byte_by_byte_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer_async.gateway.web.parameters._BODY_SECONDS", 0.2)
    async with site() as served, asyncio.timeout(30):

        async def attack(path: str) -> bytes:
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nContent-Type: application/json\r\n"
            own = "".join(f"{name}: {value}\r\n" for name, value in served.own.items())
            reader, writer = await connect(served)
            writer.write(f"{head}{own}Content-Length: 4000\r\n\r\n".encode())
            return await until_closed(reader, writer, b"a" * 4000)

        answers = await asyncio.gather(*map(attack, (LOAD, "/api/session", "/nothing", "/healthz")))
        assert [int(answer.split()[1]) for answer in answers] == [408, 408, 404, 405]


@pytest.mark.parametrize(("path", "requests"), [("/api/events", 1), ("/static/openapi.json", 200)])
async def test_a_client_that_does_not_read_its_answers_is_disconnected(
    path: str, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{CONNECTIONS}._WRITE_SECONDS", 0.2)
    async with site() as served, asyncio.timeout(30):
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", served.port))
            await loop.sock_sendall(client, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() * requests)
            latest = served.hub.latest("roof")
            assert latest is not None
            # More than the buffers of the system take.
            big = dataclasses.replace(latest, controller=dataclasses.replace(latest.controller, title="x" * 5_000_000))
            while not (path != "/api/events" or len(served.output._streams)):
                await asyncio.sleep(0.01)
            served.output.publish(big)
            while served.connections() or len(served.output._streams):
                await asyncio.sleep(0.01)


async def test_a_stream_whose_client_has_left_frees_its_place_at_once() -> None:
    async with site() as served, asyncio.timeout(10):
        for _ in range(3):
            reader, writer = await connect(served)
            writer.write(b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await reader.readuntil(b'"shed"')
            assert len(served.output._streams) == 1
            writer.close()
            while len(served.output._streams):
                await asyncio.sleep(0.01)


async def test_requests_that_are_sent_without_reading_the_answers_cost_bounded_memory() -> None:
    async with site() as served, asyncio.timeout(60):
        _, writer = await connect(served, limit=1024)
        transport = cast("asyncio.Transport", writer.transport)
        transport.pause_reading()
        request = b"GET /static/openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1000
        sent = 0
        for _ in range(400):  # 24 MB
            if transport.get_write_buffer_size() > 1_000_000:
                break  # the gateway does not take more
            writer.write(request)
            sent += len(request)
            await asyncio.sleep(0.005)
        assert sent < 20_000_000
        assert (await served.ask("GET", "/healthz"))[0] == 200
        transport.abort()


async def test_an_address_has_at_most_100_connections_and_all_have_500() -> None:
    connections = Connections(web.Server(lambda _: web.Response()))  # type: ignore[arg-type,return-value]
    stranger = network_of("203.0.113.9")
    assert [connections._enter(stranger) for _ in range(101)] == [True] * 100 + [False]
    connections._leave(stranger)
    assert connections._enter(stranger)
    # All addresses of an IPv6 network count as one.
    assert [connections._enter(network_of(f"2001:db8::{number:x}")) for number in range(101)] == [True] * 100 + [False]
    assert connections._enter(network_of("2001:db8:0:1::1"))
    assert [connections._enter("127.0.0.1") for _ in range(300)] == [True] * 299 + [False]
    assert not connections._enter(network_of("198.51.100.1"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8:1::1", "2001:db8::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("203.0.113.1", "203.0.113.2", False),
        ("::1", "::1", True),
        ("::1", "::2", False),
    ],
)
def test_clients_are_counted_by_address_or_ipv6_network(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


async def test_connections_are_counted_before_the_handshake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{CONNECTIONS}._HANDSHAKE_SECONDS", 0.5)
    monkeypatch.setattr(Connections.__init__, "__kwdefaults__", {"most": 3, "most_of_one": 3})
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files: dict[str, Any] = {"cert_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"}
    async with site(**files) as served, asyncio.timeout(30):
        silent = [await connect(served) for _ in range(3)]
        refused = await connect(served)
        assert await until_closed(*refused) == b""
        # The places of those that do not begin a handshake are free again after a while.
        for reader, writer in silent:
            assert await until_closed(reader, writer) == b""
        assert (await served.ask("GET", "/healthz"))[0] == 200


# Requests that are read in two ways


@pytest.mark.parametrize(
    "request_head",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Content-Length: 4\r\nContent-Length: 40",
        "Content-Length: +4",
        "Content-Length: 4, 4",
        "Content-Length: -1",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "Content-Length\t: 4",
        " Content-Length: 4",
        "X: a\x00b",
        "X: a\nTransfer-Encoding: chunked\n",
    ],
)
async def test_a_request_of_ambiguous_length_is_refused_and_nothing_after_it_is_read(request_head: str) -> None:
    async with site() as served, asyncio.timeout(30):
        own = "".join(f"{name}: {value}\r\n" for name, value in served.own.items())
        start = f"Host: 127.0.0.1:{served.port}\r\n{own}Content-Type: application/json\r\n"
        smuggled = f'POST {LOAD} HTTP/1.1\r\n{start}Content-Length: 13\r\n\r\n{{"on": false}}'
        answer = await served.raw(f"POST /api/session HTTP/1.1\r\n{start}{request_head}\r\n\r\n0\r\n\r\n{smuggled}")
        assert re.match(r"HTTP/1\.[01] 4\d\d ", answer), answer
        assert answer.count("HTTP/1.") == 1
        assert served.hub.switched == []


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "HEAD"])
async def test_other_methods_change_nothing(method: str) -> None:
    async with site() as served:
        for path in (LOAD, "/api/events", "/api/controllers/roof", "/"):
            async with served.session.request(method, served.url.rstrip("/") + path, headers=served.own) as response:
                if not (method == "HEAD" and path in {"/", "/api/controllers/roof"}):
                    assert response.status in {400, 404, 405}, (method, path)
                assert not any(name.lower().startswith("access-control") for name in response.headers)
        assert served.hub.switched == []
        assert len(served.output._streams) == 0


async def test_a_method_cannot_be_replaced_by_a_header_or_parameter() -> None:
    async with site() as served:
        headers = {**served.own, "X-HTTP-Method-Override": "POST", "X-HTTP-Method": "POST", "X-Method-Override": "POST"}
        assert (await served.ask("GET", f"{LOAD}?_method=POST&on=false", headers=headers))[0] == 405
        assert served.hub.switched == []


async def test_a_websocket_upgrade_is_an_ordinary_request() -> None:
    async with site() as served:
        upgrade = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YQ==\r\n"
        )
        reader, writer = await connect(served)
        writer.write(f"GET /api/controllers HTTP/1.1\r\nHost: 127.0.0.1\r\n{upgrade}\r\n".encode())
        assert b" 200 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/%2e%2e/config.py",
        "/static/..\\app.py",
        "/static//etc/passwd",
        "/static/dashboard.js%00.png",
        "/static/",
        "/static",
        "//etc/passwd",
        "/static/../api/controllers",
        "/static/%2e%2e/api/controllers",
        "/api/session/../controllers",
        "/API/controllers",
        "/api/controllers/",
        "/./api/controllers",
        "http://127.0.0.1/api/controllers",
    ],
)
async def test_no_path_leads_around_the_token(path: str) -> None:
    async with site(**with_tokens()) as served:
        answer = await served.raw(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert re.match(r"HTTP/1\.[01] 40[014] ", answer), answer
        assert "battery" not in answer


# Hosts, origins and proxies


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:80", 200),
        ("[2001:db8::1]", 200),
        ("127.0.0.1.", 421),
        ("localhost.", 421),
        ("[::1]evil.example", 421),
        ("[::1", 421),
        ("127.0.0.1:80:evil.example", 421),
        ("127.0.0.1:evil.example", 421),
        ("127.0.0.1@evil.example", 421),
        ("evil.example#127.0.0.1", 421),
        ("\uff11\uff12\uff17.0.0.1", 421),
        ("localhost\t", 200),
        ("localhost evil.example", 421),
        ("2130706433", 421),
        ("0x7f.1", 421),
        ("a" * 5000, 421),
    ],
)
async def test_host_headers_are_read_strictly(host: str, status: int) -> None:
    async with site() as served:
        answer = await served.raw(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        assert answer.startswith((f"HTTP/1.1 {status} ", "HTTP/1.0 400 ") if status == 421 else f"HTTP/1.1 {status} ")


async def test_two_host_headers_and_none_are_refused() -> None:
    async with site() as served:
        for hosts in ("Host: 127.0.0.1\r\nHost: evil.example\r\n", "Host: evil.example\r\nHost: 127.0.0.1\r\n", ""):
            answer = await served.raw(f"GET /api/controllers HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n")
            assert re.match(r"HTTP/1\.[01] 4(00|21) ", answer), answer


@pytest.mark.parametrize(
    "origin",
    [
        "http://[",
        "http://[::1",
        "",
        "null, {own}",
        "{own}/",
        "{own}@evil.example",
        "http://evil.example/{own}",
        "ftp{own}",
    ],
)
async def test_a_malformed_origin_is_refused(origin: str) -> None:
    async with site() as served:
        headers = {**served.own, "Origin": origin.replace("{own}", served.own["Origin"])}
        assert (await served.ask("POST", LOAD, json=OFF, headers=headers))[0] == 403
        assert served.hub.switched == []


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via", "CF-Connecting-IP"],
)
async def test_what_a_proxy_adds_never_gives_rights(header: str) -> None:
    async with site() as served:
        headers = {**served.own, header: "127.0.0.1"}
        assert (await served.ask("POST", LOAD, json=OFF, headers=headers))[0] == 403
        assert served.hub.switched == []
    async with site(**with_tokens()) as served:
        assert (await served.ask("GET", "/api/controllers", headers={header: "127.0.0.1"}))[0] == 401


async def test_a_forwarded_address_does_not_escape_the_delay() -> None:
    async with site(**with_tokens()) as served:
        statuses = [
            (
                await served.ask(
                    "GET",
                    "/api/controllers",
                    headers={**bearer(f"guess-{number}"), "X-Forwarded-For": f"10.0.0.{number}"},
                )
            )[0]
            for number in range(20)
        ]
        assert 429 in statuses


# Tokens and cookies that are no text, and cookies of others


@pytest.mark.parametrize("token", ["\ud800", "é", "\x00", "x" * 3000, ""])
async def test_any_token_is_answered(token: str) -> None:
    async with site(**with_tokens()) as served:
        assert (await served.ask("POST", "/api/session", json={"token": token}, headers=served.own))[0] == 401
    async with site(**with_tokens()) as served:
        answer = await served.raw_bytes(
            b"GET /api/controllers HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            b"Authorization: Bearer \xff\xfe\r\n\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 401 ")


async def test_a_cookie_of_another_page_gives_no_rights_and_takes_none() -> None:
    """Another port or subdomain of the host can set cookies of the same name."""
    async with site(**with_tokens()) as served:
        _, good = await cookie_of(served, READ)
        name = good.partition("=")[0]
        for tossed in (f"{name}=2.99999999999.{'0' * 64}", f"{name}=", f'{name}="', "a=b" * 1000, f"{name}; Path=/"):
            assert (await served.ask("GET", "/api/controllers", headers={"Cookie": tossed}))[0] == 401
            for cookies in (f"{tossed}; {good}", f"{good}; {tossed}"):
                assert (await served.ask("POST", LOAD, json=OFF, headers={"Cookie": cookies, **served.own}))[0] in {
                    401,
                    403,
                }
        assert served.hub.switched == []


async def test_a_log_in_of_another_page_is_refused() -> None:
    async with site(**with_tokens()) as served:
        for changes in (
            {"Origin": "http://evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            headers = {**served.own, **changes}
            async with served.session.post(
                served.url + "api/session", json={"token": READ}, headers=headers
            ) as response:
                assert response.status == 403
                assert "Set-Cookie" not in response.headers
            async with served.session.delete(served.url + "api/session", headers=headers) as response:
                assert response.status == 403
                assert "Set-Cookie" not in response.headers


async def test_under_tls_a_page_without_tls_is_another_page(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    async with site(cert_file=tmp_path / "cert.pem", key_file=tmp_path / "key.pem") as served:
        plain = {**served.own, "Origin": served.own["Origin"].replace("https:", "http:")}
        assert (await served.ask("POST", LOAD, json=OFF, headers=plain))[0] == 403
        assert (await served.ask("POST", LOAD, json=OFF, headers=served.own))[0] == 200


# Caches and long requests


async def test_answers_are_not_stored_by_caches() -> None:
    async with site() as served:
        for path in ("/", "/api/controllers", "/api/session", "/readyz", "/metrics", "/nothing", "/api/openapi.json"):
            async with served.session.get(served.url.rstrip("/") + path) as response:
                assert response.headers["Cache-Control"] == "no-store", path
        async with served.session.get(served.url + "static/dashboard.js") as response:
            assert response.headers["Cache-Control"] == "no-cache"


async def test_long_and_repeated_parameters_are_answered() -> None:
    async with site(history=StubHistory()) as served:
        path = "/api/controllers/roof/history?"
        for query in (
            "from=1" * 1000,
            "&".join(f"a{number}=" for number in range(1000)),
            "from=1&from=x",
            "%",
            "%zz=%",
            "&&==",
        ):
            assert (await served.ask("GET", path + query))[0] in {200, 400}, query
        for number in range(3):
            answer = await served.raw(f"GET {path}{'x' * 10_000 * 10**number} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert answer.startswith("HTTP/1.0 400 ") or not answer, answer
