"""Connecting: dead addresses, names that hang, dead controllers and broken transport factories delay nobody else."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, NoReturn

import pytest

from tests.promise.bridges import BACKENDS, LOOPS, SECONDS, VOLTAGE, Bridge, Names, black_hole, run, serial_port, until
from tests.promise.logging_controller import LoggingController
from tests.promise.virtual_time import VirtualTimeLoop
from tracer_async import Fleet, LinkError, TracerClient, TracerError

loops = pytest.mark.parametrize("loop", LOOPS)
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")

# The connect timeout is far longer than any wait in these tests.
PATIENT: dict[str, Any] = {"connect_timeout": 60.0}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr("socket.getaddrinfo", names.getaddrinfo)
    yield names
    names.end()


async def read(url: str) -> float:
    """Return the battery voltage of that controller; fail if the client waits for a dead one."""
    async with asyncio.timeout(SECONDS), TracerClient(url, **PATIENT) as tracer:
        return (await tracer.read_realtime()).battery_voltage


# (a) A host with several addresses.


@loops
@pytest.mark.parametrize("dead", [["127.0.0.1"], ["127.0.0.1", "127.0.0.1"], ["::1"], ["::1", "127.0.0.1"]])
def test_a_host_is_reached_if_its_first_addresses_drop_all_packets(loop: Any, dead: list[str], names: Names) -> None:
    async def main() -> float:
        async with Bridge() as bridge:
            with ExitStack() as stack:
                first = [(address, stack.enter_context(black_hole(address))) for address in dead]
                names.addresses["bridge.test"] = [*first, ("127.0.0.1", bridge.port)]
                return await read("tcp://bridge.test:8088")

    assert run(loop, main()) == VOLTAGE


@loops
def test_a_host_is_reached_if_its_first_address_refuses(loop: Any, names: Names) -> None:
    async def main() -> float:
        async with Bridge() as gone:
            pass
        async with Bridge() as bridge:
            names.addresses["bridge.test"] = [("127.0.0.1", gone.port), ("127.0.0.1", bridge.port)]
            return await read("tcp://bridge.test:8088")

    assert run(loop, main()) == VOLTAGE


# (b) Names that do not resolve, and ports that do not open.


@asynccontextmanager
async def clients_of(urls: list[str], server: Names | Drivers) -> AsyncIterator[None]:
    """Clients that hang while they connect: as many as the default thread pool has threads at most."""
    clients = [TracerClient(url, start_offline=True, **PATIENT) for url in urls]
    for client in clients:
        await client.open()
    try:
        await until(lambda: server.hanging >= 5)
        yield
    finally:
        server.end()
        await asyncio.gather(*(client.aclose() for client in clients))


def forty_names(names: Names) -> Any:
    return clients_of([f"tcp://bridge-{number}.test:8088" for number in range(40)], names)


@posix
@loops
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_serial_port_opens_while_name_resolution_hangs(loop: Any, backend: str, names: Names) -> None:
    async def main(path: str) -> float:
        async with forty_names(names):
            return await read(f"serial://{path}?backend={backend}")

    with serial_port() as path:
        assert run(loop, main(path)) == VOLTAGE


@loops
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_numeric_address_is_reached_while_name_resolution_hangs(loop: Any, host: str, names: Names) -> None:
    async def main() -> float:
        async with Bridge(host) as bridge, forty_names(names):
            return await read(bridge.url)

    assert run(loop, main()) == VOLTAGE


@loops
def test_a_name_is_resolved_while_other_names_hang(loop: Any, names: Names) -> None:
    async def main() -> float:
        async with Bridge() as bridge, forty_names(names):
            names.addresses["bridge.test"] = [("127.0.0.1", bridge.port)]
            return await read("tcp://bridge.test:8088")

    assert run(loop, main()) == VOLTAGE


class Drivers:
    """Replaces ``os.open``: serial ports that never open."""

    def __init__(self) -> None:
        self.hanging = 0
        self._end = threading.Event()
        self._open = os.open

    def open(self, path: Any, *args: Any, **options: Any) -> int:
        if "hanging" in str(path):
            self.hanging += 1
            self._end.wait()
            raise FileNotFoundError(2, "No such file or directory", path)
        return self._open(path, *args, **options)

    def end(self) -> None:
        """Release the calls that hang."""
        self._end.set()


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Drivers]:
    drivers = Drivers()
    monkeypatch.setattr("os.open", drivers.open)
    yield drivers
    drivers.end()


@posix
@loops
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", ["name", "port"])
def test_names_and_ports_do_not_wait_for_ports_that_hang(
    loop: Any, backend: str, what: str, names: Names, drivers: Drivers
) -> None:
    async def main(path: str) -> float:
        ports = [f"serial:///dev/hanging-{number}?backend={backend}" for number in range(40)]
        async with Bridge() as bridge:
            names.addresses["bridge.test"] = [("127.0.0.1", bridge.port)]
            async with clients_of(ports, drivers):
                return await read("tcp://bridge.test:8088" if what == "name" else f"serial://{path}?backend={backend}")

    with serial_port() as path:
        assert run(loop, main(path)) == VOLTAGE


@posix
@pytest.mark.parametrize(
    "url", ["tcp://bridge-{}.test:8088", *(f"serial:///dev/hanging-{{}}?backend={backend}" for backend in BACKENDS)]
)
def test_hanging_calls_do_not_delay_the_end_of_the_program(url: str) -> None:
    """In a separate process, because threads that hang would remain in this one."""
    program = f"""
import asyncio, os, socket, threading
from tracer_async import TracerClient

hanging = threading.Semaphore(0)
really_open = os.open

def hang(path, *args, **options):
    if "hanging" not in str(path) and "test" not in str(path):
        return really_open(path, *args, **options)
    hanging.release()
    threading.Event().wait()

os.open = socket.getaddrinfo = hang

async def main():
    for number in range(5):
        await TracerClient({url!r}.format(number), start_offline=True, connect_timeout=60.0).open()
    while not hanging.acquire(blocking=False):
        await asyncio.sleep(0.01)

asyncio.run(main())
print("ended")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", 0)


# (c) Controllers that cannot be connected to.


@loops
@pytest.mark.parametrize("connecting", [30, 200])
def test_sixty_dead_controllers_do_not_delay_a_healthy_one(loop: Any, connecting: int) -> None:
    async def main(dead: int) -> None:
        async with asyncio.timeout(SECONDS), Bridge() as bridge, Fleet(connecting=connecting) as fleet:
            for number in range(60):
                fleet.add(f"tcp://127.0.0.1:{dead}", name=str(number), interval=0.05, **PATIENT)
            fleet.add(bridge.url, name="healthy", interval=0.05, **PATIENT)
            name, reading = await anext(fleet)
            assert name == "healthy"
            assert reading.ok

    with black_hole() as dead:
        run(loop, main(dead))


async def never(protocol: Callable[[], Any]) -> tuple[Any, Any]:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [0, 2])
def test_a_thousand_dead_controllers_delay_a_healthy_one_by_less_than_two_seconds(minutes: float) -> None:
    """It is added together with them, or while the client retries them."""

    async def main() -> float:
        async with Fleet() as fleet:
            for number in range(1000):
                fleet.add(never, name=str(number), interval=60.0)
            await asyncio.sleep(minutes * 60.0)
            added_at = asyncio.get_running_loop().time()
            fleet.add(LoggingController().connect, name="healthy", interval=0.1)
            async for name, reading in fleet:
                if name == "healthy":
                    assert reading.ok
                    return asyncio.get_running_loop().time() - added_at
        raise AssertionError

    assert run(VirtualTimeLoop, main()) < 2.0


# (d) Transport factories that raise.


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


RAISED = [
    ValueError("no such baud rate"),
    KeyError("host"),
    asyncio.CancelledError(),
    TimeoutError(),
    StopIteration(),
    StopAsyncIteration(),
    AssertionError(),
    MemoryError(),
    BaseException("neither"),
    BaseExceptionGroup("several", [asyncio.CancelledError(), ValueError()]),
    UnprintableError(),
]


@pytest.mark.parametrize("raised", RAISED, ids=repr)
def test_any_exception_of_a_transport_factory_leads_to_another_attempt(
    raised: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Raises on the first attempt, and again after the connection was lost."""

    async def main() -> None:
        controller = LoggingController()
        failures = 3

        async def bring(protocol: Callable[[], Any]) -> tuple[Any, Any]:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise raised
            return await controller.connect(protocol)

        async with TracerClient(bring, start_offline=True, **PATIENT) as tracer:
            for _ in range(2):
                assert (await tracer.read_realtime()).battery_voltage == 12.3
                failures = 3
                controller.hang_up()
                while tracer.stats.links and failures == 3:
                    await asyncio.sleep(0.1)
            assert tracer.stats.links == 2

    run(VirtualTimeLoop, main())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize("raised", RAISED, ids=repr)
def test_a_factory_that_raises_is_an_error_of_the_first_attempt(raised: BaseException) -> None:
    async def bring(protocol: Callable[[], Any]) -> NoReturn:
        raise raised

    async def main() -> None:
        with pytest.raises(TracerError):
            await TracerClient(bring).open()

    run(VirtualTimeLoop, main())


@pytest.mark.parametrize("returned", [None, (), 5])
def test_a_factory_that_returns_no_transport_leads_to_another_attempt(returned: Any) -> None:
    async def main() -> None:
        controller = LoggingController()
        answers = [returned] * 3

        async def bring(protocol: Callable[[], Any]) -> Any:
            return answers.pop() if answers else await controller.connect(protocol)

        async with TracerClient(bring, start_offline=True, **PATIENT) as tracer:
            assert (await tracer.read_realtime()).battery_voltage == 12.3

    run(VirtualTimeLoop, main())


async def test_the_error_for_a_factory_that_does_not_call_the_protocol_factory_says_so() -> None:
    async def bring(protocol: Callable[[], Any]) -> Any:
        return None, None

    with pytest.raises(LinkError, match="protocol factory"):
        await TracerClient(bring).open()
