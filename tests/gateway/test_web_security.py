"""Attacks on the web output: each is refused, and the answer tells nothing that helps."""

from __future__ import annotations

import asyncio
import io
import json
import re
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import trustme
from pydantic import SecretStr, ValidationError

from tests.gateway.web_site import LOAD, OFF, READ, SWITCH, bearer, cookie_of, site, with_tokens
from tracer_async.gateway.config import WebConfig
from tracer_async.gateway.web.access import Access, LoginDelays, Sessions

BASIC = {"Authorization": "Basic dXNlcjpwYXNzd29yZA=="}

# Tokens


def test_off_loopback_a_token_is_needed() -> None:
    for listen in ("0.0.0.0:8090", "[::]:8090", "192.168.1.5:8090", "solar.example:8090"):
        with pytest.raises(ValidationError, match="set token or token_file"):
            WebConfig(listen=listen)
        assert WebConfig(listen=listen, auth="none")
        assert WebConfig(listen=listen, token=SecretStr(READ))


async def test_nothing_can_be_read_without_a_token_where_one_is_set() -> None:
    async with site(**with_tokens()) as served:
        for path in (
            "/api/controllers",
            "/api/controllers/roof",
            "/api/controllers/nobody",
            "/api/controllers/roof/history",
            "/api/controllers/roof/energy",
            "/api/events",
            "/nothing",
        ):
            assert (await served.ask("GET", path))[0] == 401, path
            assert (await served.ask("GET", path, headers=bearer("wrong")))[0] in {401, 429}, path
        assert (await served.ask("GET", "/readyz"))[1] == {"ready": True}


async def test_metrics_need_the_reading_token_where_one_is_set() -> None:
    async with site(**with_tokens()) as served:
        assert (await served.ask("GET", "/metrics"))[0] == 401
        async with served.session.get(served.url + "metrics", headers=bearer(READ)) as response:
            assert response.status == 200
    async with site() as served, served.session.get(served.url + "metrics") as response:
        assert response.status == 200


async def test_the_reading_token_reads_and_does_not_switch() -> None:
    async with site(**with_tokens()) as served:
        assert (await served.ask("GET", "/api/controllers", headers=bearer(READ)))[0] == 200
        assert (await served.ask("POST", LOAD, json=OFF, headers=bearer(READ)))[0] == 403
        assert served.hub.switched == []


async def test_the_switching_token_switches() -> None:
    async with site(**with_tokens()) as served:
        assert (await served.ask("POST", LOAD, json=OFF, headers=bearer(SWITCH)))[0] == 200
        assert served.hub.switched == [("roof", False)]


@pytest.mark.parametrize(
    ("options", "headers", "status"),
    [
        ({}, {}, 200),
        ({}, {"X-Forwarded-For": "203.0.113.9"}, 403),
        ({}, {"Host": "{host}.local"}, 403),
        ({"listen": "0.0.0.0:0", "auth": "none"}, {}, 403),
        ({"token": SecretStr(READ)}, {}, 401),
        ({"token": SecretStr(READ)}, bearer(READ), 200),
        ({"listen": "0.0.0.0:0", "token": SecretStr(READ)}, bearer(READ), 403),
        ({"switch_token": SecretStr(SWITCH)}, {}, 403),
        ({}, BASIC, 403),
        ({"token": SecretStr(READ)}, BASIC, 401),
    ],
)
async def test_without_a_switching_token_only_this_machine_switches(
    options: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    async with site(**{"hosts": ("proxy.local",), **options}) as served:
        host = f"proxy.local:{served.port}" if "Host" in headers else f"127.0.0.1:{served.port}"
        own = {**headers, "X-Tracer-Async": "1", "Host": host, "Origin": f"http://{host}"}
        url = f"http://127.0.0.1:{served.port}{LOAD}"
        async with served.session.post(url, json=OFF, headers=own) as response:
            assert response.status == status
        assert served.hub.switched == ([("roof", False)] if status == 200 else [])


def test_a_wrong_token_takes_the_same_comparisons_as_a_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((len(left), len(right)))
        return left == right

    monkeypatch.setattr("hmac.compare_digest", compare)
    sessions = Sessions(WebConfig(**with_tokens()))
    levels = [sessions.of_token(token) for token in (READ, SWITCH, "x", READ[:-1] + "x", READ * 100)]
    assert levels == [Access.READ, Access.SWITCH, Access.NONE, Access.NONE, Access.NONE]
    assert compared == [(32, 32)] * 10


# Cookies


async def test_the_cookie_is_httponly_and_samesite_strict() -> None:
    async with site(**with_tokens()) as served:
        header, cookie = await cookie_of(served, READ)
        assert "HttpOnly" in header
        assert "SameSite=Strict" in header
        assert READ not in header
        assert (await served.ask("GET", "/api/controllers", headers={"Cookie": cookie}))[0] == 200
        assert (await served.ask("POST", LOAD, json=OFF, headers={"Cookie": cookie, **served.own}))[0] == 403
        _, cookie = await cookie_of(served, SWITCH)
        assert (await served.ask("POST", LOAD, json=OFF, headers={"Cookie": cookie, **served.own}))[0] == 200


async def test_the_cookie_is_secure_under_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files = {"cert_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"}
    async with site(**with_tokens(**files)) as served:
        assert served.url.startswith("https://")
        header, cookie = await cookie_of(served, READ)
        assert "Secure" in header
        assert cookie.startswith("__Host-")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        async with served.session.get(served.url + "api/session", ssl=context, headers={"Cookie": cookie}) as response:
            assert (await response.json())["read"]


def test_a_cookie_that_is_changed_or_too_old_allows_nothing() -> None:
    now = 1000.0
    sessions = Sessions(WebConfig(**with_tokens()), clock=lambda: now)
    cookie = sessions.sign(Access.READ)
    assert sessions.of_cookie(cookie) is Access.READ
    level, expires, signature = cookie.split(".")
    for forged in (
        f"2.{expires}.{signature}",
        f"{level}.{int(expires) + 1}.{signature}",
        f"{level}.{expires}.{signature[:-1]}",
        f"{level}.{expires}.é",
        f"0.{expires}.{signature}",
        f"{level}.{expires}",
        f"{level}.{'9' * 5000}.{signature}",
        "",
        ".",
        "..",
    ):
        assert sessions.of_cookie(forged) is Access.NONE, forged
    now = float(expires)
    assert sessions.of_cookie(cookie) is Access.NONE


def test_a_new_token_ends_the_sessions_of_the_old_one() -> None:
    cookie = Sessions(WebConfig(**with_tokens())).sign(Access.READ)
    changed = Sessions(WebConfig(**with_tokens(token=SecretStr("another token"))))
    assert changed.of_cookie(cookie) is Access.NONE


# A proxy with a password of its own


async def test_the_password_of_a_proxy_does_not_disturb_a_log_in_or_its_session() -> None:
    async with site(**with_tokens()) as served:
        page = {**served.own, **BASIC}
        async with served.session.post(served.url + "api/session", json={"token": SWITCH}, headers=page) as response:
            assert response.status == 200
            cookie = {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}
        assert (await served.ask("GET", "/api/session", headers={**BASIC, **cookie}))[1]["logged_in"]
        assert (await served.ask("GET", "/api/controllers", headers={**BASIC, **cookie}))[0] == 200
        assert (await served.ask("POST", LOAD, json=OFF, headers={**page, **cookie}))[0] == 200
        assert (await served.ask("DELETE", "/api/session", headers={**page, **cookie}))[0] == 200
        assert served.hub.switched == [("roof", False)]


@pytest.mark.parametrize("scheme", ["Basic", "Digest", "Bearers", ""])
async def test_the_password_of_a_proxy_gives_no_rights(scheme: str) -> None:
    async with site(**with_tokens()) as served:
        headers = {"Authorization": f"{scheme} {SWITCH}"}
        assert (await served.ask("GET", "/api/controllers", headers=headers))[0] == 401
        assert (await served.ask("POST", LOAD, json=OFF, headers={**served.own, **headers}))[0] == 401
        assert served.hub.switched == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", LOAD, OFF), ("POST", "/api/session", {"token": SWITCH}), ("DELETE", "/api/session", None)],
)
async def test_a_request_of_another_page_is_refused_although_the_browser_adds_a_password(
    method: str, path: str, body: dict[str, object] | None
) -> None:
    """A browser sends the password of a proxy with requests of any page."""
    async with site(**with_tokens()) as served:
        cookie = {"Cookie": (await cookie_of(served, SWITCH))[1]}
        for origin in ({"Origin": "http://evil.example"}, {}):
            assert (await served.ask(method, path, json=body, headers={**BASIC, **cookie, **origin}))[0] == 403
        assert served.hub.switched == []


# Requests of other pages


@pytest.mark.parametrize(
    "changes",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"X-Tracer-Async": None},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "http://127.0.0.1"},
    ],
)
@pytest.mark.parametrize("tokens", [False, True])
async def test_a_cross_site_post_does_nothing(changes: dict[str, str | None], tokens: bool) -> None:
    async with site(**(with_tokens() if tokens else {})) as served:
        headers: dict[str, str | None] = {**served.own, **changes}
        if tokens:
            headers["Cookie"] = (await cookie_of(served, SWITCH))[1]
        sent = {name: value for name, value in headers.items() if value is not None}
        assert (await served.ask("POST", LOAD, json=OFF, headers=sent))[0] == 403
        assert served.hub.switched == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_what_a_form_can_send_is_refused(kind: str) -> None:
    async with site() as served:
        headers = {**served.own, "Content-Type": kind}
        assert (await served.ask("POST", LOAD, data=b'{"on": false}', headers=headers))[0] == 415
        assert served.hub.switched == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8090", "127.0.0.1.evil.example", "", "localhost.evil"])
async def test_a_host_name_that_is_not_configured_is_refused(host: str) -> None:
    """DNS rebinding: a page's own name points to this machine, so that its requests count as its own."""
    async with site() as served:
        for path in ("/", "/api/controllers", "/healthz", "/static/dashboard.js"):
            answer = await served.raw(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
            assert answer.startswith("HTTP/1.1 421 "), answer
            assert "battery" not in answer


@pytest.mark.parametrize(
    ("host", "begin"),
    [
        ("Evil.example:8090", "The host name evil.example"),
        ("solar", "The host name solar"),
        ("<b>evil</b>", "This host name"),
        ("\u202eevil", "This host name"),
        ("evil.example, other", "This host name"),
        ("a" * 101, "This host name"),
        ("", "This host name"),
    ],
)
async def test_the_answer_to_a_wrong_host_name_says_what_to_do_and_nothing_else(host: str, begin: str) -> None:
    async with site() as served:
        answer = await served.raw(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        body = json.loads(answer.partition("\r\n\r\n")[2])
        assert body == {"error": f"{begin} is not allowed. Add it to `hosts` in [web]."}


async def test_configured_names_and_addresses_are_accepted() -> None:
    async with site(hosts=("Solar.Example",)) as served:
        for host in ("127.0.0.1", "localhost:1", "solar.example", "SOLAR.example:443", "192.168.1.5:80", "[::1]:8090"):
            answer = await served.raw(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
            assert answer.startswith("HTTP/1.1 200 "), host


# Guessing


def test_delays_grow_and_are_forgotten() -> None:
    now = 0.0
    delays = LoginDelays(clock=lambda: now)
    waits = []
    for _ in range(14):
        delays.failed("203.0.113.9")
        waits.append(delays.wait_seconds("203.0.113.9"))
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert delays.wait_seconds("203.0.113.10") == 0
    now = 61.0
    assert delays.wait_seconds("203.0.113.9") == 0
    now = 1000.0
    delays.failed("203.0.113.9")
    assert delays.wait_seconds("203.0.113.9") > 0
    now = 2000.0
    assert delays.wait_seconds("203.0.113.9") == 0
    delays.failed("203.0.113.9")
    assert delays.wait_seconds("203.0.113.9") == 0


def test_the_delays_remember_a_bounded_number_of_addresses() -> None:
    delays = LoginDelays(clock=lambda: 0.0)
    for number in range(30_000):
        delays.failed(str(number))
    assert len(delays._failures) <= 10_000


@pytest.mark.parametrize("way", ["log in", "header"])
async def test_brute_force_is_slowed_down_and_the_right_token_with_it(way: str) -> None:
    async with site(**with_tokens()) as served:

        async def attempt(token: str) -> tuple[int, object]:
            if way == "header":
                return await served.ask("GET", "/api/controllers", headers=bearer(token))
            return await served.ask("POST", "/api/session", json={"token": token}, headers=served.own)

        cookie = (await cookie_of(served, READ))[1]
        statuses = [(await attempt(f"guess-{number}"))[0] for number in range(50)]
        assert statuses[:5] == [401] * 5
        assert 429 in statuses
        assert statuses.count(401) <= 7
        if way == "header":
            assert (await attempt(READ))[0] in {429, 200}
        # Who has logged in before is not locked out by others.
        assert (await served.ask("GET", "/api/controllers", headers={"Cookie": cookie}))[0] == 200


@pytest.mark.parametrize("way", ["log in", "header"])
async def test_wrong_tokens_are_logged_with_the_address_in_a_few_lines_and_without_the_token(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(**with_tokens()) as served:
        for number in range(5):
            token = f"guess-{number}"
            if way == "header":
                status, _ = await served.ask("GET", "/api/controllers", headers=bearer(token))
            else:
                status, _ = await served.ask("POST", "/api/session", json={"token": token}, headers=served.own)
            assert status == 401
        assert caplog.messages == ["web: a log-in failed: wrong token from 127.0.0.1"] * 5
        while len(caplog.messages) == 5:
            await served.ask("GET", "/api/controllers", headers=bearer("guess-again"))
        assert caplog.messages[5:] == ["web: too many wrong tokens; of this minute no more are logged"]
        assert {record.levelname for record in caplog.records} == {"WARNING"}
        assert "guess" not in caplog.text


# Limits


async def test_an_oversized_body_is_refused() -> None:
    async with site() as served:
        headers = {**served.own, "Content-Type": "application/json"}
        for size in (5_000, 20_000_000):
            try:
                status, _ = await served.ask("POST", LOAD, data=io.BytesIO(b" " * size), headers=headers)
            except aiohttp.ClientError:
                continue  # the gateway has closed the connection before all of it was sent
            assert status == 413
        assert served.hub.switched == []


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "null", '{"on": 1}', '{"on": "true"}', "{}", '{"on": true, "x": 1}', "[" * 3000]
)
async def test_a_wrong_body_is_refused(body: str) -> None:
    async with site() as served:
        headers = {**served.own, "Content-Type": "application/json"}
        assert (await served.ask("POST", LOAD, data=body.encode(), headers=headers))[0] == 400
        assert served.hub.switched == []


async def test_oversized_and_malformed_headers_are_refused() -> None:
    async with site() as served:
        for request in (
            "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + "a" * 100_000 + "\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + "X: a\r\n" * 10_000 + "\r\n",
            "GET /" + "a" * 100_000 + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            "\x16\x03\x01 this is TLS\r\n\r\n",
            "NONSENSE\r\n\r\n",
        ):
            answer = await served.raw(request)
            assert answer.startswith(("HTTP/1.0 400 ", "HTTP/1.1 400 ")) or not answer, answer
            assert not re.search(r"aiohttp|Python|Traceback|/tracer_async", answer)
        assert (await served.ask("GET", "/healthz"))[0] == 200


async def test_500_event_streams_are_limited_and_the_rest_works() -> None:
    async with site() as served, asyncio.timeout(60):
        request = "GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        streams = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(500)]
        answers: list[bytes] = []
        for reader, writer in streams[:400]:
            writer.write(request.encode())
            answers.append(await reader.readline())
        assert sum(b" 200 " in answer for answer in answers) == 250
        assert sum(b" 503 " in answer for answer in answers) == 150
        for answer, (reader, _) in zip(answers, streams, strict=False):
            if b" 503 " in answer:
                await reader.read()  # it ends: who was refused keeps no place
        for _, writer in streams:
            writer.close()
        while True:
            try:
                assert (await served.ask("GET", "/healthz"))[0] == 200
                break
            except aiohttp.ClientError:  # until the closed ones are gone
                await asyncio.sleep(0.01)


async def test_a_slow_reader_of_events_costs_bounded_memory() -> None:
    async with site() as served, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.write(b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b" 200 " in await reader.readline()
        transport = cast("asyncio.Transport", writer.transport)
        transport.pause_reading()
        latest = served.hub.latest("roof")
        assert latest is not None
        for _ in range(20_000):
            served.output.publish(latest)
        (stream,) = served.output._streams._streams
        assert sum(map(len, stream._messages.values())) < 10_000
        assert (await served.ask("GET", "/api/controllers"))[0] == 200
        writer.close()


async def test_a_client_that_sends_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer_async.gateway.web.connections._FIRST_REQUEST_SECONDS", 0.05)
    async with site() as served, asyncio.timeout(30):
        for beginning in (b"", b"GET / HTT"):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(beginning)
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()


# What an answer tells


async def test_answers_tell_no_version_path_or_stack_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as served:

        def fail(name: str) -> None:
            raise RuntimeError(f"secret {name}")

        monkeypatch.setattr(served.hub, "latest", fail)
        for path in ("/", "/nothing", "/api/controllers", "/api/controllers/roof", "/%00", "/static/../app.py", "//"):
            answer = await served.raw(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            assert not re.search(r"aiohttp|Python|Traceback|\.py|secret|\d+\.\d+\.\d+(?!\.\d)", answer), answer
            assert "Server: tracer-async\r\n" in answer


async def test_every_answer_has_a_policy_without_inline_scripts() -> None:
    async with site() as served:
        for path in ("/", "/nothing", "/api/controllers", "/static/dashboard.js"):
            async with served.session.get(served.url.rstrip("/") + path) as response:
                policy = dict(
                    part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";")
                )
                assert policy["default-src"] == "'none'"
                assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
                assert policy["frame-ancestors"] == "'none'"
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                if path == "/":
                    page = await response.text()
                    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style|https?://", page)


async def test_reasons_tell_no_address() -> None:
    async with site() as served:
        _, answer = await served.ask("GET", "/api/controllers/shed")
        assert (answer["online"], answer["reason"]) == (False, "no answer")
        assert "sim:" not in str(answer)


async def test_a_title_is_never_markup() -> None:
    """The API gives titles as JSON; the page sets them as text (see the browser's tests)."""
    async with site() as served:
        async with served.session.get(served.url + "api/controllers") as response:
            assert response.content_type == "application/json"
        async with served.session.get(served.url) as response:
            assert "<b>roof" not in await response.text()
