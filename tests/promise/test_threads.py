"""Event loops in several threads share nothing, and a client works only in its own event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest

from tests.promise.settings import SETTINGS
from tests.promise.stamping_controller import READ, Replies, Request, StampingController
from tests.promise.stamping_lines import Line, NewLoop, line_of, on_each_loop, run
from tracer_async import (
    Fleet,
    LinkClosedError,
    Reading,
    Subscription,
    TracerClient,
)
from tracer_async.protocol import ReadRealtime
from tracer_async.simulator import serve_tcp

LOOPS = 4
CLIENTS = 3


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Switch threads as often as possible, so that races show."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@on_each_loop
def test_four_event_loops_in_four_threads_read_no_values_of_each_others_controllers(
    new_loop: NewLoop, hasty_threads: None
) -> None:
    """Each reply is followed by more replies of the same controller, so that each read returns many bytes."""

    def script(controller: StampingController, request: Request) -> Replies:
        return [(0, controller.execute(request))]

    def judge(controller: StampingController, reading: Reading) -> None:
        assert reading.data is not None, reading.error
        number = controller.number(reading.data.battery_voltage, reading.data.charge_current)
        controller.judge(reading, number)

    async def ask(line: Line, tracer: TracerClient, end: float) -> int:
        readings = 0
        while time.monotonic() < end:
            judge(line.controller, await tracer.read())
            readings += 1
        return readings

    def work(lines: list[Line], end: float) -> int:
        async def main() -> int:
            async with AsyncExitStack() as stack:
                tracers = [await stack.enter_async_context(line.client(timeout=5.0)) for line in lines]
                return sum(await asyncio.gather(*(ask(*pair, end) for pair in zip(lines, tracers, strict=True))))

        return run(new_loop, main)

    with ExitStack() as stack, ThreadPoolExecutor(LOOPS) as threads:
        lines = [
            [stack.enter_context(line_of("tcp", script, identity=10 * loop + client)) for client in range(CLIENTS)]
            for loop in range(LOOPS)
        ]
        end = time.monotonic() + 1.0
        assert all(threads.map(lambda own: work(own, end), lines))


async def iterate(tracer: TracerClient) -> None:
    async for _ in tracer.poll(1.0):
        break


async def enter(tracer: TracerClient) -> None:
    async with tracer:
        pass


ASYNC_CALLS: dict[str, Callable[[TracerClient], Awaitable[Any]]] = {
    "read": lambda tracer: tracer.read(),
    "read_realtime": lambda tracer: tracer.read_realtime(),
    "read_realtime(max_age)": lambda tracer: tracer.read_realtime(max_age=60.0),
    "execute": lambda tracer: tracer.execute(ReadRealtime()),
    "set_load": lambda tracer: tracer.set_load(True),
    "write_settings": lambda tracer: tracer.write_settings(SETTINGS),
    "poll": iterate,
    "open": lambda tracer: tracer.open(),
    "async with": enter,
    "aclose": lambda tracer: tracer.aclose(),
    "wait_closed": lambda tracer: tracer.wait_closed(),
}

CALLS: dict[str, Callable[[TracerClient], Any]] = {
    "connection": lambda tracer: tracer.connection(),
    "frames": lambda tracer: tracer.frames(),
    "poll": lambda tracer: tracer.poll(1.0),
    "state_changes": lambda tracer: tracer.state_changes(),
}


def all_calls() -> dict[str, Callable[[TracerClient], Any]]:
    """Each public method, called in another thread with an event loop; plain functions also without one."""

    def looped(call: Callable[[TracerClient], Any]) -> Callable[[TracerClient], Any]:
        async def main(tracer: TracerClient) -> Any:
            async with asyncio.timeout(5):
                result = call(tracer)
                return await result if asyncio.iscoroutine(result) else result

        return lambda tracer: asyncio.run(main(tracer))

    calls = {f"{name} in a loop": looped(call) for name, call in {**CALLS, **ASYNC_CALLS}.items()}
    return {**calls, **CALLS}


def test_all_public_methods_are_called() -> None:
    methods = {name for name in dir(TracerClient) if not name.startswith("_") and callable(getattr(TracerClient, name))}
    assert methods - {"poll", *CALLS, *ASYNC_CALLS} == set()


@on_each_loop
def test_a_client_raises_in_another_thread_and_sends_nothing(new_loop: NewLoop) -> None:
    with line_of("tcp") as line:

        async def main() -> None:
            async with line.client() as tracer:
                await tracer.read()
                asked = len(line.controller.requests)
                for name, call in all_calls().items():
                    error = await asyncio.to_thread(error_of, call, tracer)
                    assert isinstance(error, RuntimeError), name
                    assert "belongs to another event loop or thread" in str(error), name
                    assert tracer.url in str(error), name
                assert tracer.state == "up"
                await tracer.read()
                # It is the next request, so none came before it.
                assert len(line.controller.requests) == asked + 1 == line.controller.count(READ)

        run(new_loop, main)


def test_a_client_raises_at_once_while_its_own_loop_is_blocked() -> None:
    """A wait for the other loop would last until that loop is no longer blocked."""
    with line_of("tcp") as line, ThreadPoolExecutor(1) as thread:

        async def main() -> None:
            async with line.client() as tracer:
                for call in all_calls().values():
                    # Wait for the result without a turn of the loop.
                    assert isinstance(thread.submit(error_of, call, tracer).result(5), RuntimeError)

        asyncio.run(main())


def test_a_client_raises_in_another_loop_of_the_same_thread_and_sends_nothing() -> None:
    with line_of("tcp") as line, asyncio.Runner() as own, asyncio.Runner() as other:
        tracer = line.client()
        own.run(tracer.open())
        for call in ASYNC_CALLS.values():

            async def main(call: Callable[[TracerClient], Awaitable[Any]] = call) -> None:
                async with asyncio.timeout(5):
                    await call(tracer)

            with pytest.raises(RuntimeError, match="another event loop or thread"):
                other.run(main())
        assert not line.controller.requests
        own.run(tracer.read())
        own.run(tracer.aclose())
        with pytest.raises(LinkClosedError):
            own.run(tracer.read())


@pytest.mark.parametrize("queued", [True, False], ids=["with an item", "empty"])
@pytest.mark.parametrize("name", ["frames", "state_changes"])
async def test_an_iterator_of_a_client_raises_in_another_thread_and_loses_no_item(name: str, queued: bool) -> None:
    def iterate_elsewhere(iterator: Subscription[Any]) -> None:
        async def main() -> None:
            async with asyncio.timeout(5):
                await anext(iterator)

        with pytest.raises(RuntimeError, match="another event loop or thread"):
            asyncio.run(main())

    async with asyncio.timeout(10), AsyncExitStack() as server:
        url = await server.enter_async_context(serve_tcp())
        async with TracerClient(url) as tracer:
            iterator: Subscription[Any] = getattr(tracer, name)()

            async def add_item() -> None:
                """Receive one frame, or lose the connection."""
                changes = tracer.state_changes()
                await tracer.read()
                if name == "state_changes":
                    await server.aclose()
                    assert await anext(changes) == "down"

            if queued:
                await add_item()
            await asyncio.to_thread(iterate_elsewhere, iterator)
            if not queued:
                await add_item()
            item = await anext(iterator)
            assert item == "down" if name == "state_changes" else item.command == READ


def test_a_fleets_client_raises_in_another_thread_and_sends_nothing() -> None:
    with line_of("tcp") as line:

        async def main() -> None:
            async with Fleet() as fleet:
                tracer = fleet.add(line.url, interval=600.0)
                await anext(fleet)
                for name, call in all_calls().items():
                    assert isinstance(await asyncio.to_thread(error_of, call, tracer), RuntimeError), name
                assert line.controller.count(READ) == len(line.controller.requests) == 1

        asyncio.run(main())


FLEET_CALLS: dict[str, Callable[[Fleet, str], Awaitable[Any]]] = {
    "add": lambda fleet, url: asyncio.sleep(0, fleet.add(url, interval=0.05, name="second")),
    "iterate": lambda fleet, _: anext(fleet),
    "remove": lambda fleet, _: fleet.remove("first"),
    "aclose": lambda fleet, _: fleet.aclose(),
}


@pytest.mark.parametrize("call", FLEET_CALLS.values(), ids=FLEET_CALLS)
def test_a_fleet_raises_in_another_thread_and_continues_in_its_own(
    call: Callable[[Fleet, str], Awaitable[Any]],
) -> None:
    """A controller added by the other loop would use the first loop's timers, and stop with the other loop."""
    with line_of("tcp") as line, line_of("tcp") as other_line:

        def use_elsewhere(fleet: Fleet) -> None:
            async def main() -> None:
                async with asyncio.timeout(5):
                    await call(fleet, other_line.url)

            with pytest.raises(RuntimeError, match="another event loop or thread"):
                asyncio.run(main())

        async def main() -> None:
            async with asyncio.timeout(10), Fleet() as fleet:
                fleet.add(line.url, interval=0.05, name="first")
                await anext(fleet)
                await asyncio.to_thread(use_elsewhere, fleet)
                for _ in range(4):
                    name, reading = await anext(fleet)
                    assert name == "first"
                    assert reading.ok
                assert len(fleet) == 1

        asyncio.run(main())
        assert not other_line.controller.connections


def test_other_threads_reach_a_client_through_its_own_loop() -> None:
    """The advice in the error message works."""
    with line_of("tcp") as line:

        async def main() -> None:
            async with line.client() as tracer:
                loop = asyncio.get_running_loop()

                def ask() -> float:
                    return asyncio.run_coroutine_threadsafe(tracer.read_realtime(), loop).result(5).battery_voltage

                assert await asyncio.to_thread(ask) == 0.0
                assert threading.active_count() > 1

        asyncio.run(main())


def error_of(call: Callable[[TracerClient], Any], tracer: TracerClient) -> BaseException | None:
    try:
        call(tracer)
    except Exception as error:  # noqa: BLE001  # which one it is, is what the test asks
        return error
    return None
