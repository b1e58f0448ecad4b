"""A name look-up that never ends: a new one starts after 30 s, at most four hang, a forked child is not affected."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.promise.bridges import SECONDS, VOLTAGE, Bridge, Names, until
from tests.promise.hanging_calls import CallClock, fail
from tracer_async import TracerClient

URL = "tcp://bridge.test:8088"

# Frequent attempts to connect.
EAGER: dict[str, Any] = {"start_offline": True, "connect_timeout": 0.02, "backoff": (0.01, 0.01)}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr("socket.getaddrinfo", names.getaddrinfo)
    yield names
    names.end()


async def test_a_name_whose_first_look_up_hangs_is_looked_up_again_after_30_seconds(
    names: Names, clock: CallClock
) -> None:
    async with Bridge() as bridge, TracerClient(URL, **EAGER) as tracer:
        await until(lambda: names.hanging == 1)
        names.addresses["bridge.test"] = [("127.0.0.1", bridge.port)]
        clock.now += 29.0
        await fail(tracer, 5)
        clock.now += 2.0
        await until(lambda: tracer.stats.links == 1)
        assert (await tracer.read_realtime()).battery_voltage == VOLTAGE
        # A new client does not wait for the look-up that hangs.
        async with TracerClient(URL, connect_timeout=SECONDS) as second:
            assert (await second.read_realtime()).battery_voltage == VOLTAGE
        assert names.hanging == 1


async def test_at_most_four_look_ups_of_a_name_hang_at_the_same_time(names: Names, clock: CallClock) -> None:
    async with TracerClient(URL, **EAGER) as tracer, TracerClient(URL, **EAGER) as second:
        for count in range(1, 5):
            await until(lambda count=count: names.hanging == count)  # type: ignore[misc]
            await fail(tracer, 2)
            await fail(second, 2)
            assert names.hanging == count
            clock.now += 31.0
        for _ in range(3):
            await fail(tracer, 2)
            clock.now += 31.0
        assert names.hanging == 4


CHILD = """
import asyncio, os, socket, threading, warnings
from contextlib import suppress
from tracer_async import TracerClient
from tracer_async.simulator import SimulatedTracer, serve_tcp

hanging = threading.Event()
really_look_up = socket.getaddrinfo
def look_up(host, port, *args, **options):
    if host != "bridge.test":
        return really_look_up(host, port, *args, **options)
    hanging.set()
    threading.Event().wait()
socket.getaddrinfo = look_up

async def hang():
    await TracerClient(URL, start_offline=True).open()
    while not hanging.is_set():
        await asyncio.sleep(0.001)

async def read():
    async with serve_tcp(SimulatedTracer()) as url:
        port = int(url.rpartition(":")[2])
        socket.getaddrinfo = lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]
        async with asyncio.timeout(5), TracerClient(URL) as tracer:
            await tracer.read()

runner = asyncio.Runner()
runner.run(hang())
warnings.simplefilter("ignore")  # Python 3.12 warns of a fork with threads
child = os.fork()
if child == 0:
    code = 1
    with suppress(TimeoutError):
        asyncio.run(read())
        code = 0
    os._exit(code)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
runner.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_child_does_not_wait_for_a_look_up_of_its_parent() -> None:
    """The parent's threads do not exist in the child. Runs in a separate process, because one thread hangs forever."""
    program = f"URL = {URL!r}\n{CHILD}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)
