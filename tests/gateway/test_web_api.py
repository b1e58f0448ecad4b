"""The JSON API: each answer is what ``openapi.json`` says, and each status that it names occurs."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from importlib.resources import files
from typing import Any, NamedTuple

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from tests.gateway.stub_hub import StubHub, controller, data, event
from tests.gateway.web_site import READ, SWITCH, Site, StubHistory, site, with_tokens
from tracer_async import (
    AmbiguousReplyError,
    LinkClosedError,
    LinkLostError,
    LinkTimeoutError,
    LoadRefusedError,
    LoadState,
    LoadUnknownError,
    RealtimeData,
    ResponseTimeoutError,
    TracerError,
)
from tracer_async.gateway._clock import uptime
from tracer_async.gateway._load_switch import LoadDeadlineError
from tracer_async.gateway.config import WebConfig
from tracer_async.gateway.events import EnergyTotals
from tracer_async.gateway.listening import ListensOnlyError
from tracer_async.gateway.output import OutputState
from tracer_async.gateway.web.app import make_app
from tracer_async.gateway.web.streams import Streams

OPENAPI: dict[str, Any] = json.loads(files("tracer_async.gateway.web").joinpath("static", "openapi.json").read_text())
JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": f"Bearer {SWITCH}"}
WRONG = {"Authorization": "Bearer wrong"}


def schema_of(path: str, method: str, status: int) -> dict[str, Any]:
    """The schema of an answer. Fails if the status is not documented."""
    content = OPENAPI["paths"][path][method]["responses"][str(status)].get("content", {})
    # The references of the schema are found in the document around it.
    return {**OPENAPI, **content["application/json"]["schema"]}


def check(path: str, method: str, status: int, answer: object) -> None:
    Draft202012Validator(schema_of(path, method, status)).validate(answer)


async def checked(served: Site, method: str, path: str, template: str, **options: Any) -> tuple[int, Any]:
    """Ask, and hold the answer against its schema."""
    status, answer = await served.ask(method, path, **options)
    check(template, method.lower(), status, answer)
    return status, answer


# The file


def test_the_file_has_exactly_the_routes_of_the_application() -> None:
    app = make_app(WebConfig(), StubHub(), Streams(), history=None, zone=None)
    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    of_files = {("get", "/")} | {(method, path) for method, path in routes if path.startswith("/static/")}
    documented = {(method, path) for path, methods in OPENAPI["paths"].items() for method in methods}
    assert routes - of_files == documented


def test_the_schemas_are_valid_and_name_every_field() -> None:
    for name, schema in OPENAPI["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        if schema.get("type") == "object":
            assert schema["additionalProperties"] is False, name
    reading = OPENAPI["components"]["schemas"]["Reading"]["properties"]
    assert set(reading) == set(data().to_dict())


# Every status


class Case(NamedTuple):
    method: str
    template: str
    status: int
    headers: dict[str, str | None]
    body: object = None
    query: str = ""


def cases() -> list[Case]:
    """A request for each documented answer that needs no special state of the gateway."""
    found = []
    for template, methods in OPENAPI["paths"].items():
        for method, operation in methods.items():
            body: object = {"token": SWITCH} if template == "/api/session" else {"on": True}
            body = body if method == "post" else None
            for code in map(int, operation["responses"]):
                changes: dict[int, tuple[dict[str, str | None], object, str]] = {
                    200: ({}, body, ""),
                    400: ({}, {"x": 1} if method == "post" else None, "?from=x"),
                    401: (
                        {"Authorization": None if template == "/api/session" and method == "post" else "Bearer wrong"},
                        {"token": "wrong"} if template == "/api/session" and method == "post" else body,
                        "",
                    ),
                    403: (
                        {"Authorization": None} if "session" in template else {"Authorization": f"Bearer {READ}"},
                        body,
                        "",
                    ),
                    413: ({}, "x" * 5000, ""),
                    415: ({"Content-Type": "text/plain"}, body, ""),
                    421: ({"Host": "evil.example"}, body, ""),
                }
                if code in changes and "application/json" in operation["responses"][str(code)]["content"]:
                    headers, sent, query = changes[code]
                    found.append(Case(method.upper(), template, code, headers, sent, query))
    return found


def test_no_other_answers_are_documented_than_those_tested_here() -> None:
    tested = {(case.template, case.method.lower(), case.status) for case in cases()}
    documented = {
        (template, method, int(code))
        for template, methods in OPENAPI["paths"].items()
        for method, operation in methods.items()
        for code in operation["responses"]
    }
    # These need a special state of the gateway. The other answers with 200 have no JSON schema.
    others = {code for _, _, code in documented - tested}
    assert others == {200, 404, 408, 409, 429, 502, 503}


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.method} {case.template} {case.status}")
async def test_each_documented_answer_is_given(case: Case) -> None:
    async with site(history=StubHistory(), **with_tokens()) as served:
        hub = served.hub
        hub.states.clear()
        headers: dict[str, Any] = {**JSON, **BEARER, **case.headers}
        if case.method == "POST" and case.template == "/api/session" and case.status == 401:
            headers.update(served.own)
        body = None if case.body is None else json.dumps(case.body).encode()
        path = case.template.replace("{name}", "roof") + case.query
        sent = {name: value for name, value in headers.items() if value is not None}
        status, _ = await checked(served, case.method, path, case.template, headers=sent, data=body)
        assert status == case.status


@pytest.mark.parametrize(
    "path", ["/api/controllers/{name}", *(f"/api/controllers/{{name}}/{x}" for x in ("history", "energy"))]
)
async def test_a_controller_that_is_not_configured_is_not_found(path: str) -> None:
    async with site(history=StubHistory()) as served:
        for name in ("nobody", "ROOF", "%00", "roof%2f..", "é", "a" * 65):
            url = served.url.rstrip("/") + path.replace("{name}", name)
            async with served.session.get(url) as response:
                assert response.status == 404, name
                check(path, "get", 404, await response.json())
        status, _ = await checked(
            served,
            "POST",
            "/api/controllers/nobody/load",
            "/api/controllers/{name}/load",
            json={"on": True},
            headers=served.own,
        )
        assert status == 404


async def test_without_a_history_there_is_none_to_ask() -> None:
    async with site() as served:
        for kind in ("history", "energy"):
            template = f"/api/controllers/{{name}}/{kind}"
            assert (await checked(served, "GET", f"/api/controllers/roof/{kind}", template))[0] == 404


async def test_a_database_that_does_not_answer_is_reported_without_its_reason() -> None:
    history = StubHistory()
    history.error = OSError("disk I/O error in /var/lib/secret.db")
    async with site(history=history) as served:
        for kind in ("history", "energy"):
            template = f"/api/controllers/{{name}}/{kind}"
            status, answer = await checked(served, "GET", f"/api/controllers/roof/{kind}", template)
            assert (status, answer) == (503, {"error": "the database does not answer"})


async def test_too_many_wrong_tokens_are_answered_with_the_time_to_wait() -> None:
    for template, methods in OPENAPI["paths"].items():
        for method, operation in methods.items():
            if "429" not in operation["responses"]:
                continue
            async with site(history=StubHistory(), **with_tokens()) as served:
                for number in range(6):
                    await served.ask("GET", "/api/controllers", headers={"Authorization": f"Bearer wrong-{number}"})
                path = served.url.rstrip("/") + template.replace("{name}", "roof")
                body = {"token": "wrong"} if method == "post" else None
                headers = {**served.own, **WRONG}
                async with served.session.request(method, path, json=body, headers=headers) as response:
                    assert response.status == 429, template
                    assert int(response.headers["Retry-After"]) >= 1
                    check(template, method, 429, await response.json())


async def test_a_body_that_does_not_come_ends_with_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer_async.gateway.web.parameters._BODY_SECONDS", 0.05)
    async with site() as served, asyncio.timeout(30):
        head = "".join(f"{name}: {value}\r\n" for name, value in {**served.own, **JSON}.items())

        async def attempt(path: str) -> str:
            host = f"127.0.0.1:{served.port}"
            return await served.raw(f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{head}Content-Length: 20\r\n\r\n{{")

        paths = {"/api/session": "/api/session", "/api/controllers/{name}/load": "/api/controllers/roof/load"}
        answers = await asyncio.gather(*map(attempt, paths.values()))
        for template, answer in zip(paths, answers, strict=True):
            assert answer.startswith("HTTP/1.1 408 ")
            check(template, "post", 408, json.loads(answer.partition("\r\n\r\n")[2]))
        assert served.hub.switched == []


# Controllers


async def test_a_reading_is_given_whole() -> None:
    zone = timezone(timedelta(hours=-11))
    today = datetime.now(zone).date()
    roof = controller("roof", title='<script>"é"\n')
    hub = StubHub(roof)
    measured = data(battery_voltage=12.34, overload=True, charging=False, battery_full=False)
    hub.put(event(roof, measured, energy=EnergyTotals(1000.5, 200.25, today, 50.125, 20.0, 30.0)))
    async with site(hub, zone=zone) as served:
        _, answer = await checked(served, "GET", "/api/controllers/roof", "/api/controllers/{name}")
        assert (answer["name"], answer["title"], answer["online"]) == ("roof", '<script>"é"\n', True)
        assert answer["reading"] == measured.to_dict()
        assert (answer["state"], answer["faults"], answer["reason"]) == ("idle", ["overload"], None)
        assert 0 <= answer["age"] < 10
        assert answer["energy"] == {
            "charge": 1000.5,
            "load": 200.25,
            "charge_today": 50.125,
            "load_today": 20.0,
            "unknown_seconds": 30.0,
        }
        _, everything = await checked(served, "GET", "/api/controllers", "/api/controllers")
        assert [each["name"] for each in everything["controllers"]] == ["roof"]


async def test_energy_of_another_day_is_not_that_of_today() -> None:
    roof = controller()
    hub = StubHub(roof)
    hub.put(event(roof, data(), energy=EnergyTotals(9.0, 8.0, date(2020, 1, 1), 7.0, 6.0)))
    async with site(hub, zone=UTC) as served:
        energy = (await served.ask("GET", "/api/controllers/roof"))[1]["energy"]
        assert (energy["charge"], energy["charge_today"], energy["load_today"]) == (9.0, None, None)


NOTHING: dict[str, object] = {"online": False, "reading": None, "state": None, "faults": [], "age": None, "time": None}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ResponseTimeoutError("tcp://10.0.0.7:8088", 0xA0, 3.0, 3), "no answer"),
        (LinkLostError("tcp://10.0.0.7:8088", "gone"), "connection lost"),
        (TracerError("/dev/ttyUSB0: something else"), "unexpected error"),
    ],
)
async def test_an_offline_controller_shows_the_reason_and_since_when_but_no_data(
    error: TracerError, reason: str
) -> None:
    roof = controller()
    hub = StubHub(roof)
    hub.put(event(roof, None, error=error, at=1_800_000_000.0))
    async with site(hub) as served:
        _, answer = await checked(served, "GET", "/api/controllers/roof", "/api/controllers/{name}")
        assert answer.items() >= NOTHING.items()
        assert (answer["reason"], answer["since"]) == (reason, "2027-01-15T08:00:00.000Z")
        assert "10.0.0.7" not in str(answer)
        assert "ttyUSB" not in str(answer)


async def test_a_controller_without_news_for_three_intervals_shows_no_data() -> None:
    slow, quick = controller("slow", interval=60), controller("quick", interval=1)
    hub = StubHub(slow, quick)
    for each in (slow, quick):
        hub.put(event(each, data(), monotonic=uptime() - 100))
    async with site(hub) as served:
        _, answer = await checked(served, "GET", "/api/controllers", "/api/controllers")
        assert [each["online"] for each in answer["controllers"]] == [True, False]
        assert 100 <= answer["controllers"][0]["age"] < 160
        assert answer["controllers"][1].items() >= NOTHING.items()
        assert answer["controllers"][1]["reason"].startswith("no reading for 10")


async def test_offline_since_is_the_last_reading_and_not_when_it_went_online() -> None:
    roof = controller()
    hub = StubHub(roof)
    went_online, last_reading = 1_799_971_200.0, 1_800_000_000.0  # 00:00 and 08:00
    late = event(roof, data(), at=last_reading, monotonic=uptime() - 1000)
    hub.put(replace(late, since=went_online))
    async with site(hub) as served:
        _, answer = await checked(served, "GET", "/api/controllers/roof", "/api/controllers/{name}")
        assert (answer["online"], answer["since"]) == (False, "2027-01-15T08:00:00.000Z")
        hub.put(replace(late, since=went_online, monotonic=uptime()))
        _, answer = await checked(served, "GET", "/api/controllers/roof", "/api/controllers/{name}")
        assert (answer["online"], answer["since"]) == (True, "2027-01-15T00:00:00.000Z")


async def test_an_unknown_age_is_null_and_the_reading_is_given() -> None:
    roof = controller()
    hub = StubHub(roof)
    hub.put(event(roof, data(), at=1_800_000_000.0, age=math.inf))
    async with site(hub) as served:
        _, answer = await checked(served, "GET", "/api/controllers/roof", "/api/controllers/{name}")
        assert (answer["online"], answer["age"], answer["time"]) == (True, None, "2027-01-15T08:00:00.000Z")
        assert answer["reading"] == data().to_dict()
    assert "unknown" in OPENAPI["components"]["schemas"]["Controller"]["properties"]["age"]["description"]


async def test_a_controller_before_its_first_reading_shows_no_data() -> None:
    async with site(StubHub(controller())) as served:
        _, answer = await checked(served, "GET", "/api/controllers/roof", "/api/controllers/{name}")
        assert answer.items() >= NOTHING.items()
        assert (answer["reason"], answer["since"], answer["energy"]) == ("no reading yet", None, None)


# The load


class SwitchingHub(StubHub):
    """Switches when told to; until then requests wait."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(controller())
        self.put(event(self.controllers[0], data(load_on=True)))
        self.go = asyncio.Event()
        self.asked = asyncio.Event()
        self.error = error
        self.removed = False

    async def set_load(self, name: str, on: bool, *, within: float) -> LoadState:
        self.asked.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        if self.removed:
            del self.events[name]
        else:
            self.put(event(self.controllers[0], data(load_on=on)))
        return await super().set_load(name, on, within=within)


DEVICE = "tcp://10.0.0.7:8088"
NO_ANSWER = ResponseTimeoutError(DEVICE, 0xAA, 3.0, 3)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


LOAD = ("POST", "/api/controllers/roof/load", "/api/controllers/{name}/load")


async def test_the_answer_to_a_switch_is_what_the_controller_confirmed() -> None:
    hub = SwitchingHub()
    hub.go.set()
    async with site(hub) as served:
        status, answer = await checked(served, *LOAD, json={"on": False}, headers=served.own)
        assert (status, answer["load_on"], answer["controller"]["reading"]["load_on"]) == (200, False, False)
        assert hub.switched == [("roof", False)]
        # The request goes on when the page that sent it is gone, so it has a deadline.
        assert len(hub.deadlines) == 1
        assert 5 < hub.deadlines[0] <= 10  # less if the machine was busy


async def answer_after_stall(served: Site, seconds: float) -> str:
    """Send a request to switch the load, block the event loop, and so the gateway, and return its answer then."""
    body = '{"on": false}'
    own = "".join(f"{name}: {value}\r\n" for name, value in served.own.items())
    request = (
        f"POST /api/controllers/roof/load HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n{own}Connection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(request.encode())
        time.sleep(seconds)  # noqa: ASYNC251  # it blocks the gateway
        client.setblocking(False)
        answer = b""
        while chunk := await asyncio.get_running_loop().sock_recv(client, 65536):
            answer += chunk
    return answer.decode()


async def test_the_time_that_a_request_waited_while_the_gateway_was_blocked_is_part_of_its_deadline() -> None:
    hub = SwitchingHub()
    hub.go.set()
    async with site(hub) as served:
        assert " 200 " in await answer_after_stall(served, 1.5)
        assert len(hub.deadlines) == 1
        assert 0 < hub.deadlines[0] <= 8.5


@pytest.mark.slow
async def test_a_request_that_waited_for_10_s_while_the_gateway_was_blocked_is_not_followed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client may have given up long ago. The load was switched at any time later."""
    hub = SwitchingHub()
    hub.go.set()
    async with site(hub) as served:
        head, _, body = (await answer_after_stall(served, 10.1)).partition("\r\n\r\n")
        assert " 503 " in head.partition("\r\n")[0]
        answer = json.loads(body)
        check("/api/controllers/{name}/load", "post", 503, answer)
        assert answer["code"] == "not_switched"
        assert hub.switched == []
        assert [text for text in warnings(caplog) if "was not switched off: the gateway was suspended" in text]
        await asyncio.sleep(1.1)  # what is read later arrived later
        assert (await served.ask(*LOAD[:2], json={"on": False}, headers=served.own))[0] == 200
        assert hub.switched == [("roof", False)]


@pytest.mark.parametrize(
    ("error", "status", "code", "reason"),
    [
        (
            LoadRefusedError(DEVICE, True, data(load_on=False, over_discharge=True)),
            409,
            "not_switched",
            "the controller leaves the load off: the battery is too low",
        ),
        (
            LoadRefusedError(DEVICE, False, data(load_on=True)),
            409,
            "not_switched",
            "the controller leaves the load on: is its load mode 1 manual?",
        ),
        (ListensOnlyError("roof"), 409, "not_switched", "the gateway only listens to this controller"),
        (LinkTimeoutError(DEVICE, "no connection within 5 s"), 502, "not_switched", "no connection"),
        (LoadUnknownError(DEVICE, False, sent=False, cause=NO_ANSWER), 502, "not_switched", "no answer"),
        (LoadUnknownError(DEVICE, False, sent=False), 502, "not_switched", "the controller does not answer"),
        (LoadDeadlineError("roof", 10, sent=False), 502, "not_switched", "the controller does not answer"),
        (LoadDeadlineError("roof", 10, sent=True), 502, "unknown", "it is unknown whether the load was switched"),
        (LoadUnknownError(DEVICE, False), 502, "unknown", "it is unknown whether the load was switched"),
        (
            LoadUnknownError(DEVICE, False, data(load_on=True)),
            502,
            "unknown",
            "it is unknown whether the load was switched",
        ),
        (NO_ANSWER, 502, "unknown", "no answer"),
        (AmbiguousReplyError(DEVICE, 0xAA, b"\x00"), 502, "unknown", "the answer may belong to another request"),
        (LinkLostError(DEVICE, "connection lost"), 502, "unknown", "connection lost"),
        (LinkClosedError(DEVICE, "the client was closed"), 502, "unknown", "no connection"),
    ],
)
async def test_a_switch_that_fails_is_answered_and_logged_with_what_is_certain(
    error: TracerError, status: int, code: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = SwitchingHub(error)
    hub.go.set()
    async with site(hub) as served:
        answer = await checked(served, *LOAD, json={"on": False}, headers=served.own)
        assert answer == (status, {"error": reason, "code": code})
    begin = {
        "not_switched": "roof: the load was not switched off: ",
        "unknown": "roof: it is unknown whether the load was switched off: ",
    }
    assert warnings(caplog) == [begin[code] + str(error)]


async def test_a_switch_of_a_controller_that_is_removed_meanwhile_is_not_found(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = SwitchingHub(KeyError("roof"))
    hub.go.set()
    async with site(hub) as served:
        assert (await checked(served, *LOAD, json={"on": True}, headers=served.own))[0] == 404
    assert warnings(caplog) == ["roof: the load was not switched on: no such controller"]


async def test_a_confirmed_switch_of_a_controller_that_is_removed_meanwhile_is_answered_without_its_state() -> None:
    hub = SwitchingHub()
    async with site(hub) as served, asyncio.timeout(30):
        answer = asyncio.create_task(checked(served, *LOAD, json={"on": False}, headers=served.own))
        await hub.asked.wait()
        hub.controllers = []
        hub.removed = True
        hub.go.set()
        assert await answer == (200, {"load_on": False, "controller": None})


async def test_a_switch_that_fails_after_its_client_has_left_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    hub = SwitchingHub(NO_ANSWER)
    async with site(hub) as served, asyncio.timeout(30):
        asked = asyncio.create_task(served.ask(*LOAD[:2], json={"on": False}, headers=served.own))
        await hub.asked.wait()
        asked.cancel()
        await asyncio.wait([asked])
        hub.go.set()
        while not warnings(caplog):
            await asyncio.sleep(0.01)
    assert warnings(caplog) == [f"roof: it is unknown whether the load was switched off: {NO_ANSWER}"]


async def test_one_switch_at_a_time() -> None:
    hub = SwitchingHub()
    async with site(hub) as served:
        first = asyncio.create_task(checked(served, *LOAD, json={"on": False}, headers=served.own))
        await hub.asked.wait()
        assert (await checked(served, *LOAD, json={"on": True}, headers=served.own))[0] == 409
        hub.go.set()
        assert (await first)[0] == 200
        assert hub.switched == [("roof", False)]


async def test_a_client_that_leaves_does_not_interrupt_a_switch() -> None:
    hub = SwitchingHub()
    async with site(hub) as served, asyncio.timeout(30):
        first = asyncio.create_task(served.ask(*LOAD[:2], json={"on": False}, headers=served.own))
        await hub.asked.wait()
        first.cancel()
        await asyncio.wait([first])
        hub.go.set()
        while not hub.switched:
            await asyncio.sleep(0.01)


# History


@pytest.mark.parametrize(
    ("query", "start", "end", "step"),
    [
        ("from=1000&to=2000", 1000, 2000, None),
        ("from=1000.5&to=2000&step=60", 1000.5, 2000, 60),
        ("from=2026-06-01T00:00:00Z&to=2026-06-01T03:00:00%2B02:00", 1780272000, 1780275600, None),
        ("from=2026-06-01T00:00:00-01:00&to=2026-06-01T03:00:00+01:00", 1780275600, 1780279200, None),
        ("to=50000", 50000 - 6 * 3600, 50000, None),
    ],
)
async def test_moments_are_seconds_or_iso_8601(query: str, start: float, end: float, step: float | None) -> None:
    history = StubHistory()
    async with site(history=history) as served:
        path = f"/api/controllers/roof/history?{query}"
        status, answer = await checked(served, "GET", path, "/api/controllers/{name}/history")
        assert status == 200
        assert history.asked == [("roof", start, end, step)]
        assert answer["time"] == [start]
        assert answer["battery_voltage"] == {"min": [12.0], "mean": [12.5], "max": [13.0]}
        assert answer["battery_temperature"] == {"min": [-1], "mean": [0], "max": [1]}


async def test_the_last_six_hours_are_the_default() -> None:
    history = StubHistory()
    async with site(history=history) as served:
        before = time.time()
        await checked(served, "GET", "/api/controllers/roof/history", "/api/controllers/{name}/history")
        ((_, start, end, _),) = history.asked
        assert isinstance(start, float)
        assert isinstance(end, float)
        assert before <= end <= time.time()
        assert end - start == pytest.approx(6 * 3600)


@pytest.mark.parametrize(
    "query",
    [
        "from=yesterday",
        "from=2026-06-01T00:00:00",
        "from=2026-06-01",
        "from=",
        "from=nan",
        "from=inf",
        "from=-1",
        "from=1e300",
        "from=2000&to=1000",
        "from=1000&to=1000",
        "step=0",
        "step=-5",
        "step=x",
        "step=nan",
        "step=1e9",
        "from=" + "9" * 5000,
        "from=0001-01-01T00:00:00%2B23:59",
        "from=9999-12-31T23:59:59-23:59",
        "to=%ff",
    ],
)
async def test_wrong_moments_and_steps_are_refused(query: str) -> None:
    history = StubHistory()
    async with site(history=history) as served:
        path = f"/api/controllers/roof/history?{query}"
        assert (await checked(served, "GET", path, "/api/controllers/{name}/history"))[0] == 400
        assert history.asked == []


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("from=2026-02-27&to=2026-03-02", date(2026, 2, 27), date(2026, 3, 2)),
        ("to=2026-03-02", date(2026, 1, 31), date(2026, 3, 2)),
        ("from=2026-03-02&to=2026-03-02", date(2026, 3, 2), date(2026, 3, 2)),
        ("to=0001-01-02", date(1, 1, 2), date(1, 1, 2)),
    ],
)
async def test_energy_is_given_by_day(query: str, first: date, last: date) -> None:
    history = StubHistory()
    async with site(history=history) as served:
        path = f"/api/controllers/roof/energy?{query}"
        _, answer = await checked(served, "GET", path, "/api/controllers/{name}/energy")
        assert history.asked == [("roof", first, last)]
        assert [day["day"] for day in answer["days"]] == [
            (first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)
        ]


async def test_the_last_day_is_today_in_the_gateways_time_zone() -> None:
    for hours in (-12, 14):
        zone = timezone(timedelta(hours=hours))
        history = StubHistory()
        async with site(history=history, zone=zone) as served:
            before = datetime.now(zone).date()
            await checked(served, "GET", "/api/controllers/roof/energy", "/api/controllers/{name}/energy")
            assert history.asked[0][2] in {before, datetime.now(zone).date()}


@pytest.mark.parametrize(
    "query",
    ["from=x", "from=2026-13-01", "from=2026-03-02&to=2026-03-01", "from=2000-01-01&to=2026-01-01", "to=", "to=0"],
)
async def test_wrong_days_are_refused(query: str) -> None:
    async with site(history=StubHistory()) as served:
        path = f"/api/controllers/roof/energy?{query}"
        assert (await checked(served, "GET", path, "/api/controllers/{name}/energy"))[0] == 400


# Health, metrics, sessions


async def test_alive_says_nothing_else() -> None:
    async with site(StubHub()) as served:
        assert await checked(served, "GET", "/healthz", "/healthz") == (200, {"alive": True})


async def test_ready_means_a_current_reading_and_outputs_that_work() -> None:
    roof = controller()
    hub = StubHub(roof)
    output = OutputState("mqtt")
    async with site(hub) as served:
        hub.states.append(output)

        async def ready() -> tuple[int, Any]:
            return await checked(served, "GET", "/readyz", "/readyz")

        assert await ready() == (503, {"ready": False, "waiting_for": ["mqtt", "controllers"]})
        output.works()
        assert await ready() == (503, {"ready": False, "waiting_for": ["controllers"]})
        hub.put(event(roof, None))
        assert (await ready())[0] == 503
        hub.put(event(roof, data(), monotonic=uptime() - 1000))
        assert (await ready())[0] == 503
        hub.put(event(roof, data()))
        assert await ready() == (200, {"ready": True, "waiting_for": []})
        output.fails("connection refused")
        assert await ready() == (503, {"ready": False, "waiting_for": ["mqtt"]})


async def test_what_an_owner_should_know_is_told() -> None:
    hub = StubHub(controller())
    hub.put(event(controller(), data()))
    async with site(hub) as served:
        hub.states[0].notice = "the database was damaged"
        _, answer = await checked(served, "GET", "/readyz", "/readyz")
        assert answer["notices"] == {"web": "the database was damaged"}


async def test_who_may_not_read_learns_only_whether_it_is_ready() -> None:
    async with site(**with_tokens()) as served:
        assert await checked(served, "GET", "/readyz", "/readyz") == (200, {"ready": True})
        headers = {"Authorization": f"Bearer {READ}"}
        _, answer = await checked(served, "GET", "/readyz", "/readyz", headers=headers)
        assert answer == {"ready": True, "waiting_for": []}


@pytest.mark.parametrize("address", ["0.0.0.0", "[::]"])
async def test_the_address_of_the_dashboard_for_all_addresses_has_the_name_of_this_machine(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with site(listen=f"{address}:0", auth="none") as served:
        assert served.output.url == f"http://{socket.gethostname()}:{served.port}/"
        lines = [record.getMessage() for record in caplog.records]
        assert f"dashboard: http://{socket.gethostname()}:{served.port}/" in lines


async def test_the_metrics_and_the_file_are_served() -> None:
    async with site() as served:
        async with served.session.get(served.url + "metrics") as response:
            assert response.content_type == "text/plain"
            assert 'tracer_up{controller="roof"} 1.0' in await response.text()
        assert await served.ask("GET", "/api/openapi.json") == (200, OPENAPI)


@pytest.mark.parametrize(
    ("options", "token", "expected"),
    [
        ({}, None, {"logged_in": False, "read": True, "switch": True, "token_helps": False}),
        (with_tokens(), None, {"logged_in": False, "read": False, "switch": False, "token_helps": True}),
        (with_tokens(), READ, {"logged_in": True, "read": True, "switch": False, "token_helps": True}),
        (with_tokens(), SWITCH, {"logged_in": True, "read": True, "switch": True, "token_helps": False}),
        (with_tokens(switch_token=None), READ, {"logged_in": True, "read": True, "switch": True, "token_helps": False}),
        (
            {"listen": "0.0.0.0:0", "auth": "none"},
            None,
            {"logged_in": False, "read": True, "switch": False, "token_helps": False},
        ),
    ],
)
async def test_a_session_says_what_it_allows(
    options: dict[str, Any], token: str | None, expected: dict[str, bool]
) -> None:
    async with site(**options) as served:
        headers = {}
        base = f"http://127.0.0.1:{served.port}"
        if token is not None:
            async with served.session.post(
                f"{base}/api/session", json={"token": token}, headers=served.own
            ) as response:
                answer = await response.json()
                check("/api/session", "post", response.status, answer)
                assert answer == {"read": expected["read"], "switch": expected["switch"]}
                headers["Cookie"] = response.headers["Set-Cookie"].partition(";")[0]
        async with served.session.get(f"{base}/api/session", headers=headers) as response:
            answer = await response.json()
        check("/api/session", "get", 200, answer)
        assert answer == {**expected, "history": False}


@pytest.mark.parametrize("options", [{}, with_tokens(), with_tokens(token=None), with_tokens(switch_token=None)])
async def test_a_log_out_says_what_is_still_allowed(options: dict[str, Any]) -> None:
    async with site(**options) as served:
        _, left = await checked(served, "DELETE", "/api/session", "/api/session", headers=served.own)
        _, session = await checked(served, "GET", "/api/session", "/api/session")
        assert left == {"read": session["read"], "switch": session["switch"]}


async def test_a_log_out_deletes_the_cookie() -> None:
    async with site(**with_tokens()) as served:
        url = served.url + "api/session"
        async with served.session.delete(url, headers=served.own) as response:
            assert response.status == 200
            assert "Max-Age=0" in response.headers["Set-Cookie"]
            check("/api/session", "delete", 200, await response.json())


# Event streams


class Event(NamedTuple):
    name: str
    id: float
    data: Any


async def read_events(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    """Events of a stream, as a browser reads them."""
    fields: dict[str, str] = {}
    async for line in response.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield Event(fields["event"], float(fields["id"]), json.loads(fields["data"]))
            fields = {}


@asynccontextmanager
async def stream(served: Site) -> AsyncIterator[AsyncIterator[Event]]:
    async with served.session.get(served.url + "api/events", timeout=aiohttp.ClientTimeout(None)) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        yield read_events(response)


def measured(hub: StubHub, name: str, volts: float) -> RealtimeData:
    """Put a measurement into the hub."""
    (of,) = (each for each in hub.controllers if each.name == name)
    hub.put(event(of, data(battery_voltage=volts)))
    latest = hub.latest(name)
    assert latest is not None
    assert latest.reading.data is not None
    return latest.reading.data


def publish(served: Site, name: str) -> None:
    latest = served.hub.latest(name)
    assert latest is not None
    served.output.publish(latest)


async def test_a_stream_begins_with_the_present_states_and_goes_on_with_updates_and_removals() -> None:
    async with site() as served, asyncio.timeout(30), stream(served) as events:
        first = [await anext(events), await anext(events)]
        assert [(each.name, each.data["name"]) for each in first] == [("controller", "roof"), ("controller", "shed")]
        for each in first:
            Draft202012Validator({**OPENAPI, "$ref": "#/components/schemas/Controller"}).validate(each.data)
            assert abs(each.id - time.time()) < 30
        measured(served.hub, "roof", 11.11)
        publish(served, "roof")
        update = await anext(events)
        assert (update.name, update.data["reading"]["battery_voltage"]) == ("controller", 11.11)
        served.output.remove(served.hub.controllers[1])
        assert (await anext(events))[::2] == ("removed", {"name": "shed"})
        new = controller("new", title="New")
        served.hub.controllers.append(new)
        served.hub.events["new"] = None
        served.output.add(new)
        added = await anext(events)
        assert (added.name, added.data["title"], added.data["online"]) == ("controller", "New", False)


async def test_a_silent_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer_async.gateway.web.streams._KEEP_ALIVE", 0.01)
    async with site(StubHub()) as served, asyncio.timeout(30), stream(served) as events:
        for _ in range(2):
            assert (await anext(events))[::2] == ("alive", {})


async def test_a_stream_too_many_is_answered_with_the_time_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as served:
        monkeypatch.setattr(served.output._streams, "_most", 0)
        async with served.session.get(served.url + "api/events") as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "30"
            check("/api/events", "get", 503, await response.json())


async def test_200_streams_get_the_newest_state_of_every_controller() -> None:
    names = [f"c{number}" for number in range(5)]
    async with site(StubHub(*map(controller, names))) as served, asyncio.timeout(60):

        async def follow(started: asyncio.Semaphore) -> dict[str, float]:
            """Read until a voltage of 15 V of each controller; return how many states came."""
            newest: dict[str, float] = {}
            async with stream(served) as events:
                async for each in events:
                    if each.data["reading"] is not None:
                        newest[each.data["name"]] = each.data["reading"]["battery_voltage"]
                    elif each.data["name"] == names[-1]:
                        started.release()
                    if [newest.get(name) for name in names] == [15.0] * 5:
                        break
            return newest

        started = asyncio.Semaphore(0)
        followers = [asyncio.create_task(follow(started)) for _ in range(200)]
        for _ in followers:
            await started.acquire()
        for number in range(1, 51):
            for name in names:
                measured(served.hub, name, 10 + number / 10)
                publish(served, name)
            await asyncio.sleep(0)
        assert await asyncio.gather(*followers) == [dict.fromkeys(names, 15.0)] * 200
        assert served.output.state.dropped == 0


async def test_the_service_ends_soon_with_open_streams_and_idle_connections() -> None:
    async with asyncio.timeout(30):
        async with site() as served:
            request = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            opened = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(60)]
            for number, (reader, writer) in enumerate(opened):
                writer.write(
                    request % [b"/api/events", b"/healthz", b"/api/events"][number % 3] if number < 50 else b""
                )
                if number < 50:
                    assert b" 200 " in await reader.readline()
            begun = time.monotonic()
        assert time.monotonic() - begun < 2.5
        for _, writer in opened:
            writer.close()
