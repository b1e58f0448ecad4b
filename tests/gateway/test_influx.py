"""The output for InfluxDB: real servers, and a stub that answers what they answer in trouble."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from line_protocol_parser import parse_line
from pydantic import SecretStr

from tests.gateway.peer_process import free_port, listening, running
from tests.gateway.stub_hub import controller, data, event
from tracer_async.gateway.config import InfluxConfig
from tracer_async.gateway.events import EnergyTotals
from tracer_async.gateway.influx import InfluxOutput

HOSTILE = 'a "b", c=d\\ <script>\n\u2028é'
ROOF = controller("roof", title=HOSTILE)


class Stub:
    """A server that keeps what it gets, and answers as it is told."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.requests: list[web.Request] = []
        self.lines: list[str] = []
        self.refused = "\0"

    async def write(self, request: web.Request) -> web.Response:
        body = await request.text()
        status = self.answers.pop(0) if self.answers else 204
        if self.refused in body:
            status = 400
        self.requests.append(request)
        if status == 204:
            self.lines += body.split("\n")
        return web.Response(status=status, text="" if status == 204 else f"status\n{status}")


@asynccontextmanager
async def serving(stub: Stub, port: int = 0) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes([web.post("/write", stub.write), web.post("/api/v2/write", stub.write)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def delivering(output: InfluxOutput) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(output.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def delivered(output: InfluxOutput, count: int) -> None:
    """Wait until the output counts as many events as delivered."""
    async with asyncio.timeout(30):
        while output.state.delivered < count:
            await asyncio.sleep(0.01)


def config(url: str, **options: Any) -> InfluxConfig:
    return InfluxConfig(url=url, **{"batch_seconds": 0.1, **options})


async def test_a_reading_becomes_a_point_that_an_independent_parser_reads() -> None:
    stub = Stub()
    async with serving(stub) as url:
        output = InfluxOutput(config(url))
        output.publish(
            event(ROOF, data(battery_voltage=12.34), at=1000.25, energy=EnergyTotals(5.5, day=date(1970, 1, 1)))
        )
        async with delivering(output):
            await delivered(output, 1)
    point = parse_line(stub.lines[0])
    assert (point["measurement"], point["tags"], point["time"]) == ("tracer", {"controller": "roof"}, 1000_250_000_000)
    assert point["fields"]["battery_voltage"] == 12.34
    assert point["fields"]["charge_energy"] == 5.5
    assert stub.requests[0].query["db"] == "tracer"
    assert output.state.delivered == 1
    assert output.state.connected


async def test_an_error_carries_no_measurement() -> None:
    stub = Stub()
    async with serving(stub) as url:
        output = InfluxOutput(config(url))
        output.publish(event(ROOF, None))
        async with delivering(output):
            await delivered(output, 1)
    fields = parse_line(stub.lines[0])["fields"]
    assert fields["ok"] is False
    assert set(fields) == {"ok", "error"}


async def test_readings_of_an_outage_arrive_afterwards_in_order() -> None:
    stub = Stub()
    port = free_port()
    output = InfluxOutput(config(f"http://127.0.0.1:{port}"))
    for second in range(7000):
        output.publish(event(ROOF, data(), at=float(second)))
    with pytest.raises(OSError, match="cannot be reached"):
        await output.run()
    stub.answers = [503, 204]
    async with serving(stub, port):
        with pytest.raises(OSError, match="answered 503: status 503"):
            await output.run()
        async with delivering(output):
            await delivered(output, 7000)
    assert [parse_line(line)["time"] for line in stub.lines] == [second * 10**9 for second in range(7000)]
    assert output.state.dropped == 0


async def test_a_full_buffer_drops_the_oldest_and_counts_them() -> None:
    stub = Stub()
    async with serving(stub) as url:
        output = InfluxOutput(config(url, buffer=100))
        for second in range(130):
            output.publish(event(ROOF, data(), at=float(second)))
        async with delivering(output):
            await delivered(output, 1)
    assert [parse_line(line)["time"] // 10**9 for line in stub.lines] == list(range(30, 130))
    assert output.state.dropped == 30


async def test_a_point_that_the_server_refuses_does_not_block_the_others() -> None:
    stub = Stub()
    stub.refused = "controller=shed"
    async with serving(stub) as url:
        output = InfluxOutput(config(url))
        for second in range(100):
            output.publish(event(controller("shed") if second == 37 else ROOF, data(), at=float(second)))
        async with delivering(output):
            await delivered(output, 99)
    assert (output.state.delivered, output.state.dropped) == (99, 1)


async def test_a_controller_that_is_refused_for_good_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    stub = Stub()
    async with serving(stub) as url:
        output = InfluxOutput(config(url))
        # It is accepted once, in the eighth batch.
        for batch in range(10):
            stub.refused = "\0" if batch == 7 else "controller=shed"
            output.publish(event(ROOF, data(), at=float(batch)))
            output.publish(event(controller("shed"), data(), at=float(batch)))
            await output.drain()
    assert refusals(caplog) == ["shed", "shed"]
    assert (output.state.delivered, output.state.dropped) == (11, 9)


async def test_a_server_that_refuses_every_second_batch_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stub = Stub()
    stub.answers = [204, 400] * 100
    async with serving(stub) as url:
        output = InfluxOutput(config(url))
        for number in range(200):
            output.publish(event(ROOF, data(), at=float(number)))
            await output.drain()
    assert output.state.dropped == 100
    # At most 30 in a minute, and a new minute can begin meanwhile.
    assert 0 < len(refusals(caplog)) <= 60


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The controllers of the lines about readings that are dropped."""
    lines = [record.getMessage() for record in caplog.records if record.name == "tracer_async.gateway.influx"]
    return [line.split()[4] for line in lines if line.startswith("influx: a reading of")]


async def test_a_batch_that_is_too_large_is_divided() -> None:
    stub = Stub()
    stub.answers = [413, 413]
    async with serving(stub) as url:
        output = InfluxOutput(config(url))
        for second in range(100):
            output.publish(event(ROOF, data(), at=float(second)))
        async with delivering(output):
            await delivered(output, 100)
    assert [parse_line(line)["time"] // 10**9 for line in stub.lines] == list(range(100))


async def test_what_is_left_at_the_end_is_sent() -> None:
    stub = Stub()
    async with serving(stub) as url:
        output = InfluxOutput(config(url, batch_seconds=3600))
        output.publish(event(ROOF, data()))
        async with delivering(output):
            await delivered(output, 1)
            output.publish(event(ROOF, data(), at=1.0))
        await output.drain()
    assert len(stub.lines) == 2


async def test_what_cannot_be_sent_at_the_end_is_left_for_the_output_that_follows() -> None:
    output = InfluxOutput(config(f"http://127.0.0.1:{free_port()}"))
    events = [event(ROOF, data(), at=float(second)) for second in range(3)]
    for one in events:
        output.publish(one)
    with pytest.raises(OSError, match="cannot be reached"):
        await output.drain()
    assert output.take_left() == events
    assert output.take_left() == []


async def test_the_token_goes_to_the_address_of_influxdb_2() -> None:
    stub = Stub()
    async with serving(stub) as url:
        output = InfluxOutput(config(url, org="home", database="solar", token=SecretStr("secret token")))
        output.publish(event(ROOF, data()))
        async with delivering(output):
            await delivered(output, 1)
    request = stub.requests[0]
    assert request.path == "/api/v2/write"
    assert dict(request.query) == {"org": "home", "bucket": "solar", "precision": "ns"}
    assert request.headers["Authorization"] == "Token secret token"


async def test_user_name_and_password_are_sent_and_never_in_an_error() -> None:
    stub = Stub()
    stub.answers = [401]
    async with serving(stub) as url:
        output = InfluxOutput(config(url, username="sölar", password=SecretStr("pässword")))
        output.publish(event(ROOF, data()))
        with pytest.raises(OSError, match="answered 401") as caught:
            await output.run()
    scheme, _, credentials = stub.requests[0].headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(credentials).decode()) == ("Basic", "sölar:pässword")
    assert "pässword" not in str(caught.value)
    assert "pässword" not in repr(output.state.__dict__)


# Real servers


INFLUX = """\
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
[http]
  bind-address = "127.0.0.1:{port}"
  auth-enabled = true
"""


@pytest.mark.slow
async def test_influxdb_takes_the_lines_and_gives_the_values_back(
    require: Callable[[str], str], tmp_path: Path
) -> None:
    port, rpc = free_port(), free_port()
    file = tmp_path / "influxdb.conf"
    file.write_text(INFLUX.format(port=port, rpc=rpc, folder=tmp_path))
    url = f"http://127.0.0.1:{port}"
    async with running(require("influxd"), "-config", str(file), log=tmp_path / "log"):
        await listening(port)
        async with aiohttp.ClientSession() as session:

            async def query(text: str, **parameters: str) -> Any:
                async with session.post(f"{url}/query", params={"q": text, **parameters}) as response:
                    return await response.json()

            await query("CREATE USER solar WITH PASSWORD 'the password' WITH ALL PRIVILEGES")
            login = {"u": "solar", "p": "the password"}
            await query("CREATE DATABASE tracer", **login)
            now = int(time.time())
            output = InfluxOutput(config(url, username="solar", password=SecretStr("the password")))
            measured = data(battery_voltage=12.34, battery_temperature=-5)
            output.publish(event(ROOF, measured, at=now - 2.0))
            output.publish(event(ROOF, None, at=now - 1.0))
            output.publish(event(controller("shed-2_b"), measured._replace(battery_voltage=13.0), at=now - 1.0))
            async with delivering(output):
                await delivered(output, 3)
            answer = await query("SELECT * FROM tracer WHERE controller = 'roof'", db="tracer", epoch="s", **login)
            series = answer["results"][0]["series"][0]
            rows = [dict(zip(series["columns"], values, strict=True)) for values in series["values"]]
            assert [row["time"] for row in rows] == [now - 2, now - 1]
            for name, value in measured.to_dict().items():
                assert rows[0][name] == value, name
            assert rows[1]["battery_voltage"] is None
            assert rows[1]["ok"] is False
            tags = await query("SHOW TAG VALUES FROM tracer WITH KEY = controller", db="tracer", **login)
            assert [value for _, value in tags["results"][0]["series"][0]["values"]] == ["roof", "shed-2_b"]


@pytest.mark.slow
async def test_victoria_metrics_takes_the_lines_and_gives_the_values_back(
    require: Callable[[str], str], tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={tmp_path}/data"]
    async with running(require("victoria-metrics"), *arguments, log=tmp_path / "log"):
        await listening(port)
        output = InfluxOutput(config(url))
        now = time.time()
        output.publish(event(ROOF, data(battery_voltage=12.34), at=now - 60))
        output.publish(event(ROOF, None, at=now - 50))
        async with delivering(output):
            await delivered(output, 2)
        async with aiohttp.ClientSession() as session, asyncio.timeout(30):
            while True:
                parameters = {"match[]": 'tracer_battery_voltage{controller="roof"}'}
                async with session.get(f"{url}/internal/force_flush"):
                    pass
                async with session.get(f"{url}/api/v1/export", params=parameters) as response:
                    if found := await response.text():
                        break
                await asyncio.sleep(0.1)
    assert '"values":[12.34]' in found
