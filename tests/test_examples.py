"""Every example runs as a program and prints what it should."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tracer_async import TracerClient
from tracer_async.simulator import SimulatedTracer, serve_tcp

EXAMPLES = Path(__file__).parents[1] / "examples"

OUTPUT = {
    "read_once": (["sim:"], r"battery 1\d\.\d\d V, panel \d+\.\d\d V, charging: \d+\.\d W\n"),
    "poll_and_print": (["sim:", "0.01", "3"], r"(\d\d:\d\d:\d\d 1\d\.\d\d V \d+\.\d\d A\n){3}"),
    "load_by_voltage": (["sim:", "0.01", "3"], r""),
    "several_controllers": ([], r"(sim:\?seed=\d: 1\d\.\d\d V, \d+\.\d W in, \d+\.\d W out\n){3}"),
    "decode_capture": (
        [],
        r"noise: 00eb90\n12\.44 V\ndamaged \(wrong CRC\): eb90.{68}\nDecoderStats\(frames=1, corrupt_frames=1, .*\)\n",
    ),
    "own_transport": ([], r"1\d\.\d\d V through through_a_program\n"),
}


@pytest.mark.parametrize("name", OUTPUT)
def test_what_an_example_prints(name: str) -> None:
    arguments, expected = OUTPUT[name]
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(expected, done.stdout), done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
async def test_an_example_without_an_end_ends_quietly_on_ctrl_c() -> None:
    """The interrupt comes after the first answer of a controller, so the example is within its loop."""
    controller = SimulatedTracer()
    async with serve_tcp(controller) as url:
        for name in ("poll_and_print", "load_by_voltage"):
            controller.requests.clear()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-W",
                "error",
                EXAMPLES / f"{name}.py",
                url,
                "0.01",
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            while len(controller.requests) < 3:
                assert process.returncode is None
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, errors = await process.communicate()
            assert (name, process.returncode, errors) == (name, 0, b"")


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*OUTPUT, "aiohttp_service"}


async def test_the_load_follows_the_battery(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With thresholds around the simulated battery voltage: off below, on above, no change between them."""
    from examples import load_by_voltage

    tracer = SimulatedTracer()
    async with serve_tcp(tracer) as url:
        for off_below, on_above, load_on in (
            (20.0, 21.0, False),
            (5.0, 21.0, False),
            (5.0, 6.0, True),
            (5.0, 21.0, True),
        ):
            monkeypatch.setattr(load_by_voltage, "OFF_BELOW", off_below)
            monkeypatch.setattr(load_by_voltage, "ON_ABOVE", on_above)
            await load_by_voltage.main(url, 0.01, 1)
            assert tracer.load_on is load_on
        tracer.short_circuit = True
        monkeypatch.setattr(load_by_voltage, "ON_ABOVE", 6.0)
        await load_by_voltage.main(url, 0.01, 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["load off", "load on"]
    assert "short-circuited" in lines[2]


async def test_the_service_starts_and_stops_with_its_client() -> None:
    from examples import aiohttp_service

    async with (
        serve_tcp() as url,
        TestClient[web.Request, web.Application](TestServer(aiohttp_service.application(url))) as browser,
    ):
        response = await browser.get("/reading")
        assert response.status == 200
        assert set(await response.json()) == {"battery_voltage", "pv_voltage", "charge_current", "load_on"}
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("tracer_async ")]


async def test_the_service_says_when_its_controller_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from examples import aiohttp_service

    impatient = partial(TracerClient, connect_timeout=0.05)
    monkeypatch.setattr(aiohttp_service, "TracerClient", impatient)
    app = aiohttp_service.application("unix:/no/such/socket")
    async with TestClient[web.Request, web.Application](TestServer(app)) as browser:
        response = await browser.get("/reading")
        assert response.status == 503
        assert "no such socket" in (await response.json())["error"]
