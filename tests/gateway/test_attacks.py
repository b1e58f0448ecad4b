"""Peers, files and clients that do what they should not: each test is an attack that once did harm."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import date
from pathlib import Path

import aiomqtt
import pytest
from aiohttp import web
from paho.mqtt.properties import Properties

from tests.gateway.history.databases import Sqlite
from tests.gateway.history.events import deliver, events, running
from tests.gateway.hub_outputs import RecordingOutput
from tests.gateway.mqtt_broker import Broker
from tests.gateway.mqtt_gateway import controller as controller_config
from tests.gateway.mqtt_gateway import gateway
from tests.gateway.stub_hub import StubHub, controller, data, event
from tests.gateway.test_service import MQTT, ROOF, Service
from tests.gateway.web_site import site, with_tokens
from tracer_async.gateway._load_commands import LoadCommands
from tracer_async.gateway._published_topics import PublishedTopics
from tracer_async.gateway.config import InfluxConfig, MqttConfig
from tracer_async.gateway.config_file import ConfigError, load_config
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.events import EnergyTotals
from tracer_async.gateway.history.store import HistoryOutput
from tracer_async.gateway.hub import Hub
from tracer_async.gateway.influx import InfluxOutput
from tracer_async.gateway.metrics import render
from tracer_async.gateway.web.connections import listening_sockets


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(15):
        while not any(text in message for message in messages(caplog)):
            await asyncio.sleep(0.01)


# InfluxDB


@asynccontextmanager
async def serving_writes(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def influx_that_answers(response: web.Response) -> AsyncIterator[tuple[InfluxOutput, list[str]]]:
    """Run an output against a server that gives every POST this answer, and every GET a success."""
    methods: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        methods.append(request.method)
        if request.method == "GET":
            return web.Response(text="a start page")
        return web.Response(status=response.status, headers=response.headers, text=response.text)

    async with serving_writes(answer) as url:
        yield InfluxOutput(InfluxConfig(url=url, batch_seconds=0.1)), methods


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_of_a_write_is_no_delivery_and_the_readings_are_kept(status: int) -> None:
    """A redirected POST becomes a GET. The page behind it answers 200, but has stored nothing."""
    redirect = web.Response(status=status, headers={"Location": "https://influx.example/write"})
    async with influx_that_answers(redirect) as (output, methods):
        output.publish(event(controller(), data()))
        with pytest.raises(OSError, match=f"answered {status}: it redirects to https://influx.example/write; set url"):
            await output.run()
        assert methods == ["POST"]
        assert (output.state.delivered, output.state.dropped) == (0, 0)


@pytest.mark.parametrize("totals", [EnergyTotals(), EnergyTotals(5.5, 1.5, date(2026, 6, 1))], ids=["none", "some"])
async def test_totals_that_are_not_on_the_disk_yet_are_written_nowhere_as_0(totals: EnergyTotals) -> None:
    hub = StubHub(controller())
    hub.put(event(controller(), data(), energy=totals))
    known = totals.day is not None
    async with site(hub) as served:
        energy = (await served.ask("GET", "/api/controllers/roof"))[1]["energy"]
        assert (energy and energy["charge"]) == (5.5 if known else None)
    bodies: list[bytes] = []

    async def write(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(status=204)

    async with serving_writes(write) as url:
        output = InfluxOutput(InfluxConfig(url=url))
        output.publish(event(controller(), data(), energy=totals))
        await output.drain()
    assert (b"charge_energy=5.5" in bodies[0]) == known
    assert (b"charge_energy" in bodies[0]) == known


async def test_a_server_that_refuses_everything_does_not_count_as_working_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusal = web.Response(status=400, text="The plain HTTP request was sent to HTTPS port")
    async with influx_that_answers(refusal) as (output, _):
        output.state.works()
        for _ in range(100):
            output.publish(event(controller(), data()))
        task = asyncio.create_task(output.run())
        async with asyncio.timeout(15):
            while output.state.dropped < 100:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert not output.state.connected
        assert "plain HTTP request" in (output.state.error or "")
    assert len([message for message in messages(caplog) if "is dropped" in message]) == 1


# MQTT


@pytest.mark.parametrize(
    "content",
    [
        '{"topics": ["tracer/#"]}',
        '{"topics": [""]}',
        '{"topics": "abc"}',
        '{"topics": ["a\\u0000b"]}',
        '{"topics": ["\\ud800"]}',
        f'{{"topics": ["{"x" * 70_000}"]}}',
        "[" * 100_000,
        "[]",
    ],
    ids=["wildcard", "empty", "no list", "null character", "surrogate", "too long", "too deep", "no object"],
)
async def test_a_file_of_topics_that_no_broker_accepts_is_reported_and_not_used(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a topic would end every connection to the broker."""
    file = tmp_path / "mqtt-topics.json"
    file.write_text(content)
    published = PublishedTopics(file)
    await published.load()
    assert published.topics == frozenset()
    await until_logged(caplog, "cannot be read, so controllers removed before now are not cleaned up")


async def test_topics_that_could_not_be_written_are_written_with_the_next_ones(tmp_path: Path) -> None:
    """A disk was full when a controller was added. Its device would stay in Home Assistant for ever."""
    folder = tmp_path / "state"
    published = PublishedTopics(folder / "mqtt-topics.json")
    await published.load()
    await published.add(["tracer/roof/state"])  # there is no such folder
    folder.mkdir()
    await published.add(["tracer/roof/state"])
    again = PublishedTopics(folder / "mqtt-topics.json")
    await again.load()
    assert again.topics == {"tracer/roof/state"}


@pytest.mark.parametrize("full", [False, True], ids=["slow", "slow and then full"])
async def test_topics_are_in_the_file_when_they_are_added_again_after_a_cancelled_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """The connection to the broker was lost during a slow write. The next one added the same topics."""
    reached, release, fsync = threading.Event(), threading.Event(), os.fsync
    refuse = [full]

    def slow(descriptor: int) -> None:
        reached.set()
        assert release.wait(30)
        if refuse.pop() if refuse else False:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    file = tmp_path / "mqtt-topics.json"
    published = PublishedTopics(file)
    await published.load()
    monkeypatch.setattr(os, "fsync", slow)
    first = asyncio.create_task(published.add(["tracer/roof/state"]))
    while not reached.is_set():
        await asyncio.sleep(0.001)
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.create_task(published.add(["tracer/roof/state"]))
    await asyncio.sleep(0)
    assert not file.exists()
    release.set()
    await second
    assert "tracer/roof/state" in file.read_text()


async def test_a_message_of_100_kb_on_the_topic_of_a_command_does_not_reach_the_gateway(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker would pass on 256 MB, which is more than a small computer has left."""
    roof = {"roof": controller_config("sim:")}
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), roof):
        await judge.wait("tracer/bridge/state", "online")
        await broker.publish("tracer/roof/load/set", "x" * 100_000)
        await broker.publish("tracer/roof/load/set", "small and wrong")
        await until_logged(caplog, "not b'small and wrong'")
    assert not any("b'xxx" in message for message in messages(caplog))


async def test_when_another_client_says_that_the_gateway_is_offline_it_says_again_that_it_is_online(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A second gateway with the same prefix does that when it ends."""
    roof = {"roof": controller_config("sim:")}
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), roof):
        await judge.wait("tracer/bridge/state", "online")
        await broker.publish("tracer/bridge/state", "offline", "-r")
        await judge.wait("tracer/bridge/state", "offline")
        await judge.wait("tracer/bridge/state", "online")
        await until_logged(caplog, "another client publishes on tracer/bridge/state: give each gateway its own prefix")
        assert (await broker.retained("tracer/bridge/state"))["tracer/bridge/state"].payload == "online"


async def test_two_gateways_that_announce_the_same_device_are_reported(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They have different prefixes, as the documentation says, but a controller of each has the same name."""
    roof = {"roof": controller_config("sim:")}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    configs = [MqttConfig(url=broker.url, prefix=prefix) for prefix in ("one", "two")]
    async with broker.subscriber() as judge, gateway(tmp_path / "one", configs[0], roof):
        await judge.wait("one/bridge/state", "online")
        async with gateway(tmp_path / "two", configs[1], roof):
            await judge.wait("two/bridge/state", "online")
            await until_logged(caplog, "give controllers.roof an id that no other gateway has")
    assert len([message for message in messages(caplog) if "no other gateway" in message]) == 1


async def test_a_flood_of_commands_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    commands = LoadCommands(StubHub(controller()), lambda _: None)
    properties = Properties(3)  # type: ignore[no-untyped-call]
    for number in range(10_000):
        payload = b"ON" if number % 2 else b"wrong"
        commands.take(aiomqtt.Message("tracer/roof/load/set", payload, 0, False, 0, properties), "roof")
    assert len(messages(caplog)) < 40
    assert "too many commands" in messages(caplog)[-1]
    await commands.aclose()


# The dashboard


async def test_all_addresses_are_those_of_ipv4_too() -> None:
    """The text of an error recommends ``[::]`` for all addresses."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    sockets: list[socket.socket] = []
    while not sockets:
        with suppress(OSError):  # the free port of one family may be used in the other one
            sockets = await listening_sockets("::", 0)
    try:
        port = sockets[0].getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            _, writer = await asyncio.open_connection(address, port)
            writer.close()
    finally:
        for each in sockets:
            each.close()


async def test_connections_leave_half_of_the_open_files_to_controllers_and_outputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    async with site() as served:
        opened = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(11)]
        reader, _ = opened[-1]
        assert await reader.read() == b""
        assert served.connections() == 10
        for _, writer in opened:
            writer.close()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Content-Type: application/json; charset=nonsense", 401),
        ("Content-Type: application/json; charset=rot13", 401),
        ("Content-Type: application/json\r\nContent-Encoding: gzip", 415),
        ("Content-Type: application/json\r\nContent-Encoding: nonsense", 415),
    ],
    ids=["unknown charset", "no charset for text", "not compressed", "unknown compression"],
)
async def test_a_body_in_another_encoding_causes_no_internal_error_and_no_stack_trace_in_the_log(
    header: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Everybody can send such a body, without a token. Each one was logged with a stack trace."""
    body = '{"token": "guessed-token"}'
    async with site(**with_tokens()) as served:
        own = "".join(f"{name}: {value}\r\n" for name, value in served.own.items())
        answer = await served.raw(
            f"POST /api/session HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n{own}{header}\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
    assert answer.startswith(f"HTTP/1.1 {status} ")
    expected = ["web: a log-in failed: wrong token from 127.0.0.1"] if status == 401 else []
    assert messages(caplog) == expected


# The history


async def test_readings_are_not_lost_after_the_write_ahead_log_was_deleted(tmp_path: Path) -> None:
    """Someone follows the steps of a restore, but without stopping the gateway."""
    sqlite = Sqlite(tmp_path)
    batch = events(300)
    output = HistoryOutput(sqlite.config(), directory=tmp_path, zone=None)
    async with running(output):
        await deliver(output, batch[:100])
        # SQLite itself deletes them when the last connection is closed, as before a new attempt.
        sqlite.file.with_name("history.db-wal").unlink(missing_ok=True)
        await deliver(output, batch[100:200])
        sqlite.file.with_name("history.db-wal").unlink(missing_ok=True)
        sqlite.file.with_name("history.db-shm").unlink(missing_ok=True)
        await deliver(output, batch[200:])
        # Another program sees them: they are not in a file that has no name any more.
        assert sqlite.count() == 300
    assert sqlite.query("PRAGMA integrity_check") == [("ok",)]


# The configuration


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(b"\xef\xbb\xbf" + ROOF.encode())
    assert list(load_config(path).controllers) == ["roof"]


@pytest.mark.parametrize("prefix", ["a\\tb", "a\\u0085b", "a\\u202eb"])
def test_a_prefix_that_no_broker_accepts_is_an_error_of_the_configuration(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f'{ROOF}{MQTT}prefix = "{prefix}"\n')
    with pytest.raises(ConfigError, match=r"mqtt\.prefix: .*; a topic prefix has no control character"):
        load_config(path)


def test_a_secret_in_a_pipe_is_refused_instead_of_waiting_for_it_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "gateway.toml"
    path.write_text(f'{ROOF}[web]\ntoken_file = "pipe"\n')
    with pytest.raises(ConfigError, match=r'web\.token_file: the file "pipe" cannot be read: it is a pipe'):
        load_config(path)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, ROOF + MQTT)
    yield service
    service.process.kill()
    service.process.wait()
    service.socket.close()


def test_after_the_configuration_was_replaced_by_a_pipe_the_next_change_is_applied(service: Service) -> None:
    service.message("READY")
    service.path.unlink()
    os.mkfifo(service.path)
    service.process.send_signal(signal.SIGHUP)
    service.until(lambda: "cannot be read again: it is a pipe" in service.log)
    service.path.unlink()
    service.write(f'{ROOF}title = "Roof"\n{MQTT}')
    service.process.send_signal(signal.SIGHUP)
    service.until(lambda: service.entries(what="add", title="Roof"))


# A machine that sleeps


@pytest.fixture
def sleep_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Add these seconds to the clock that goes on during a suspend, but not to the monotonic one."""
    slept: list[float] = []
    clock = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + sum(slept))
    return slept


@pytest.mark.skipif(sys.platform != "linux", reason="the clock that goes on is Linux's")
async def test_after_a_suspend_a_reading_from_before_it_is_not_shown_as_a_present_one(
    sleep_of_the_machine: list[float],
) -> None:
    hub = StubHub(controller())
    hub.put(event(controller(), data()))
    async with site(hub) as served:
        assert (await served.ask("GET", "/api/controllers/roof"))[1]["online"]
        assert b'tracer_up{controller="roof"} 1.0' in await render(hub)
        sleep_of_the_machine.append(8 * 3600.0)
        _, roof = await served.ask("GET", "/api/controllers/roof")
        assert (roof["online"], roof["reading"], roof["time"]) == (False, None, None)
        assert b'tracer_up{controller="roof"} 0.0' in await render(hub)
        assert b"tracer_battery_volts{" not in await render(hub)


@pytest.mark.skipif(sys.platform != "linux", reason="the clock that goes on is Linux's")
async def test_the_time_of_a_suspend_is_unknown_time_of_the_energy(
    tmp_path: Path, sleep_of_the_machine: list[float]
) -> None:
    ledger = EnergyLedger(tmp_path / "energy.json", zone=None, flush_seconds=1)
    ledger.load()
    hub, output = Hub(ledger), RecordingOutput()
    hub.add("roof", controller_config("sim:"))
    hub.start(output)
    task = asyncio.create_task(hub.run())
    try:
        await output.next_event()
        sleep_of_the_machine.append(3600.0)
        await output.until(lambda events: len(events) > 3 and events[-1].online)
        await ledger.flush()
        assert 3600 <= ledger.stored("roof").unknown < 3660
    finally:
        await hub.stop(output)
        await hub.aclose()
        task.cancel()
        await asyncio.wait([task])
        await ledger.aclose()
