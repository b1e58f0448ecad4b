"""ser2net, a common bridge, between the client and a simulated controller on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tracer_async import Reading, TracerClient
from tracer_async.simulator import SimulatedTracer, serve_pty

CONFIG = """\
connection: &tracer
  accepter: tcp,127.0.0.1,{port}
  connector: serialdev,{device},9600n81,local
  options:
{options}
"""


class Bridge:
    """A ser2net process that can be killed and restarted at the same port."""

    def __init__(self, program: str, config: Path, port: int) -> None:
        self._command = [program, "-n", "-c", str(config), "-P", str(config.with_suffix(".pid"))]
        self.url = f"tcp://127.0.0.1:{port}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(*self._command, stderr=asyncio.subprocess.DEVNULL)

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def client(self, **options: object) -> TracerClient:
        """A client that starts while the bridge is down, with short timeouts and delays."""
        short_times = {"start_offline": True, "backoff": (0.01, 0.2), "timeout": 1.0, "fence": 0.2}
        return TracerClient(self.url, **short_times | options)  # type: ignore[arg-type]


@asynccontextmanager
async def bridged(program: str, folder: Path, **options: str) -> AsyncIterator[Bridge]:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with serve_pty(SimulatedTracer()) as url:
        config = folder / "ser2net.yaml"
        lines = "".join(f"    {name.replace('_', '-')}: {value}\n" for name, value in options.items())
        config.write_text(CONFIG.format(port=port, device=url.removeprefix("serial://"), options=lines or "    {}"))
        bridge = Bridge(program, config, port)
        await bridge.start()
        try:
            yield bridge
        finally:
            await bridge.kill()


async def good_readings(client: TracerClient, count: int) -> list[Reading]:
    """Poll until *count* consecutive readings are good. Return all readings."""
    readings: list[Reading] = []
    async for reading in client.poll(0.01):
        readings.append(reading)
        if len(readings) >= count and all(reading.ok for reading in readings[-count:]):
            return readings
    raise AssertionError("the poll ended")


async def test_a_banner_of_the_bridge_is_noise_and_requests_are_answered(
    tmp_path: Path, require: Callable[[str], str]
) -> None:
    banner = '"ser2net port 8088 device tracer\\r\\n"'
    async with bridged(require("ser2net"), tmp_path, banner=banner) as bridge, bridge.client() as tracer:
        await good_readings(tracer, 3)
        for on in (False, True):
            await tracer.set_load(on)
            assert (await tracer.read_realtime()).load_on is on
        assert tracer.stats.noise_bytes == len("ser2net port 8088 device tracer\r\n")


async def test_a_poll_recovers_each_time_the_bridge_is_restarted(tmp_path: Path, require: Callable[[str], str]) -> None:
    async with bridged(require("ser2net"), tmp_path) as bridge, bridge.client(connect_timeout=0.2) as tracer:
        for _ in range(3):
            await good_readings(tracer, 3)
            await bridge.kill()
            assert not (await anext(tracer.poll(0.01))).ok
            await bridge.start()
        await good_readings(tracer, 3)
        assert tracer.stats.links == 4


async def test_a_second_client_backs_off_until_the_bridge_accepts_it(
    tmp_path: Path, require: Callable[[str], str]
) -> None:
    """ser2net accepts, sends "Port already in use" and closes the connection. Without a frame, the backoff grows."""
    async with bridged(require("ser2net"), tmp_path, max_connections="1") as bridge:
        first = bridge.client()
        await first.open()
        await good_readings(first, 3)
        async with bridge.client(connect_timeout=0.1) as second:
            assert not (await anext(second.poll(0.01))).ok
            assert second.stats.frames == 0
            await good_readings(first, 3)
            assert first.stats.links == 1
            await first.aclose()
            await good_readings(second, 3)


async def test_clients_that_disconnect_each_other_get_readings_with_a_right_age(
    tmp_path: Path, require: Callable[[str], str]
) -> None:
    options = {"kickolduser": "true", "max_connections": "1"}
    async with bridged(require("ser2net"), tmp_path, **options) as bridge, bridge.client() as first:
        await good_readings(first, 1)
        async with bridge.client() as second:
            await asyncio.gather(good_readings(first, 2), good_readings(second, 2))
            assert first.stats.links > 1
        readings = await good_readings(first, 5)
    assert all(0 <= reading.age < 10 for reading in readings if reading.ok)


async def test_two_clients_on_one_bridge_read_and_switch(tmp_path: Path, require: Callable[[str], str]) -> None:
    """Each client receives the replies to both. All readings are of the same controller, and a switch is verified."""
    async with (
        bridged(require("ser2net"), tmp_path, max_connections="2") as bridge,
        bridge.client() as first,
        bridge.client() as second,
    ):
        await asyncio.gather(good_readings(first, 10), good_readings(second, 10))
        await second.aclose()
        await good_readings(first, 3)
        for on in (False, True):
            await first.set_load(on)
            assert (await first.read_realtime()).load_on is on
