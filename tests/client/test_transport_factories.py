"""Whatever a custom transport factory does, the client can be closed, retries, and reports the true cause."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.descriptors import open_files, wait_until_closed
from tests.promise.bridges import LOOPS, SECONDS, VOLTAGE, Bridge, run
from tracer_async import LinkClosedError, LinkError, LinkTimeoutError, TracerClient

loops = pytest.mark.parametrize("loop", LOOPS)


class Connecting:
    """A factory that connects to a bridge only when it is cancelled. Its second attempt can be cancelled."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.attempts = 0
        self.waiting = asyncio.Event()

    async def __call__(self, make_protocol: Callable[[], Any]) -> tuple[Any, Any]:
        self.attempts += 1
        self.waiting.set()
        if self.attempts > 1:
            await asyncio.Event().wait()
        # As asyncio.wait_for of Python 3.11 does if the cancellation comes in the step in which it is done.
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await asyncio.get_running_loop().create_connection(make_protocol, "127.0.0.1", self._port)


@loops
@pytest.mark.parametrize("start_offline", [False, True])
def test_a_client_can_be_closed_although_its_factory_ignores_the_cancellation(loop: Any, start_offline: bool) -> None:
    async def main() -> None:
        async with asyncio.timeout(SECONDS), Bridge() as bridge:
            before = open_files()
            factory = Connecting(bridge.port)
            tracer = TracerClient(factory, start_offline=start_offline, connect_timeout=600.0, backoff=(0.001, 0.001))
            opening = asyncio.create_task(tracer.open())
            await factory.waiting.wait()
            await tracer.aclose()
            with suppress(LinkClosedError):
                await opening
            assert factory.attempts == 1
            await wait_until_closed(before)

    run(loop, main())


class FailsFirst:
    """A factory whose first call raises an exception. Later calls connect."""

    def __init__(self, error: BaseException, port: int) -> None:
        self._error: BaseException | None = error
        self._port = port

    async def __call__(self, make_protocol: Callable[[], Any]) -> tuple[Any, Any]:
        error, self._error = self._error, None
        if error is not None:
            raise error
        return await asyncio.get_running_loop().create_connection(make_protocol, "127.0.0.1", self._port)


class OfTheFactory(BaseException):  # not an error: as GeneratorExit, it is not an Exception
    """An exception that only the factory knows."""


ANY_ERROR = [asyncio.CancelledError, GeneratorExit, StopIteration, OfTheFactory, MemoryError]


@loops
@pytest.mark.parametrize("kind", ANY_ERROR)
def test_a_client_retries_after_any_exception_of_its_factory(loop: Any, kind: type[BaseException]) -> None:
    async def main() -> None:
        async with asyncio.timeout(SECONDS), Bridge() as bridge:
            factory = FailsFirst(kind("why"), bridge.port)
            options: dict[str, Any] = {"start_offline": True, "backoff": (0.01, 0.01)}
            async with TracerClient(factory, connect_timeout=SECONDS, **options) as tracer:
                assert (await tracer.read_realtime()).battery_voltage == VOLTAGE

    run(loop, main())


@loops
@pytest.mark.parametrize("kind", ANY_ERROR)
def test_open_raises_link_error_after_any_exception_of_its_factory(loop: Any, kind: type[BaseException]) -> None:
    async def main() -> None:
        with pytest.raises(LinkError, match="could not be opened"):
            await TracerClient(FailsFirst(kind("why"), 0)).open()

    run(loop, main())


@pytest.mark.parametrize("raised", [TimeoutError(), TimeoutError(110, "Connection timed out")], ids=["own", "kernel"])
async def test_a_timeout_of_a_factory_does_not_name_the_timeout_of_the_client(raised: TimeoutError) -> None:
    with pytest.raises(LinkTimeoutError, match="timed out") as caught:
        await TracerClient(FailsFirst(raised, 0), connect_timeout=600.0).open()
    assert "600" not in str(caught.value)


def test_a_client_that_its_event_loop_has_left_behind_is_collected_without_an_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The interpreter ends its coroutines with GeneratorExit, and they must not take that for a failed attempt."""
    unraisable: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    waiting = threading.Event()

    async def never(make_protocol: Callable[[], Any]) -> tuple[Any, Any]:
        waiting.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> None:
        await TracerClient(never, start_offline=True).open()
        while not waiting.is_set():
            await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    del loop
    gc.collect()
    assert unraisable == []


class CancelsItself:
    """A factory with a time limit of its own, which cancels its task. The call with the given number reaches it."""

    def __init__(self, number: int, port: int) -> None:
        self._number = number
        self._port = port
        self.calls = 0

    async def __call__(self, make_protocol: Callable[[], Any]) -> tuple[Any, Any]:
        self.calls += 1
        if self.calls == self._number:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                raise TimeoutError("its own limit") from None
        return await asyncio.get_running_loop().create_connection(make_protocol, "127.0.0.1", self._port)


@loops
def test_a_factory_that_cancels_its_task_makes_open_fail(loop: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(SECONDS), Bridge() as bridge:
            tracer = TracerClient(CancelsItself(1, bridge.port))
            with pytest.raises(LinkError):
                await tracer.open()

    run(loop, main())


@loops
def test_a_factory_that_cancels_its_task_does_not_end_reconnecting(loop: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(SECONDS), Bridge() as bridge:
            factory = CancelsItself(1, bridge.port)
            async with TracerClient(factory, start_offline=True, backoff=(0.001, 0.001)) as tracer:
                assert (await tracer.read_realtime()).battery_voltage == VOLTAGE
            assert factory.calls == 2

    run(loop, main())


@loops
def test_of_several_protocols_the_one_that_the_factory_returns_is_used(loop: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(SECONDS), Bridge() as bridge:
            transports: list[Any] = []

            async def race(make_protocol: Callable[[], Any]) -> tuple[Any, Any]:
                opened = await asyncio.get_running_loop().create_connection(make_protocol, "127.0.0.1", bridge.port)
                make_protocol()  # of an address that did not answer
                transports.append(opened[0])
                return opened

            async with TracerClient(race, backoff=(0.001, 0.001)) as tracer:
                await tracer.read_realtime()
                transports[0].abort()
                assert (await tracer.read_realtime()).battery_voltage == VOLTAGE
                assert len(transports) == 2

    run(loop, main())
