"""Every public coroutine, cancelled at its first, second, ... nth suspension, over every kind of transport.

CancelledError propagates, the next reading is right, and no task, transport, descriptor or warning remains.
"""

from __future__ import annotations

import asyncio
import gc
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any

import pytest

from tests.descriptors import open_files, wait_until_closed
from tests.links import Link
from tests.peer import SETTINGS
from tracer_async import LinkClosedError, ReadRealtime, TracerClient


async def poll_twice(tracer: TracerClient) -> None:
    readings = tracer.poll(0.001)
    try:
        for _ in range(2):
            await anext(readings)
    finally:
        await readings.aclose()


async def receive_frame(tracer: TracerClient) -> None:
    frames = tracer.frames()
    await asyncio.gather(anext(frames), tracer.read_realtime())


async def receive_state_change(tracer: TracerClient) -> None:
    changes = tracer.state_changes()
    await asyncio.gather(anext(changes), tracer.aclose())


async def use_client(tracer: TracerClient) -> None:
    async with tracer:
        await tracer.read_realtime()
        await tracer.set_load(True)


CALLS: dict[str, Callable[[TracerClient], Awaitable[object]]] = {
    "read_realtime": TracerClient.read_realtime,
    "read": TracerClient.read,
    "execute": lambda tracer: tracer.execute(ReadRealtime()),
    "set_load": lambda tracer: tracer.set_load(False),
    "write_settings": lambda tracer: tracer.write_settings(SETTINGS),
    "poll": poll_twice,
    "frames": receive_frame,
    "state_changes": receive_state_change,
    "open": TracerClient.open,
    "aclose": TracerClient.aclose,
    "async with": use_client,
}
OPENING = {"open", "async with"}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_cancelled_at_any_await_leaves_the_client_working_and_no_resources(link: Link, name: str) -> None:
    descriptors = open_files()
    point = 0
    cancelled = True
    while cancelled:
        point += 1
        assert point < 100
        tracer = TracerClient(link.url)
        if name not in OPENING:
            await tracer.open()
        cancelled = await run_and_cancel_at(point, CALLS[name](tracer))
        with suppress(LinkClosedError):  # the cancelled call may have closed the client
            if name not in OPENING:
                assert (await tracer.read_realtime()).charging
        await tracer.aclose()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("tracer_async ")]
        async with TracerClient(link.url) as another:
            data = await another.read_realtime()
            assert data.charging
            assert data.load_on is link.tracer.load_on
    eager = asyncio.get_running_loop().get_task_factory() is not None
    assert point > 1 or eager, "it never suspended"
    del tracer, another
    gc.collect()  # an unclosed resource would warn now, and warnings are errors
    await wait_until_closed(descriptors)


async def run_and_cancel_at(point: int, awaitable: Awaitable[object]) -> bool:
    """Await in a new task and cancel it at its *point*-th suspension. Return whether it suspended that often.

    Fails if the cancelled task did not raise CancelledError.
    """
    count = 0

    async def run() -> None:
        await awaitable

    @types.coroutine
    def drive(coroutine: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        nonlocal count
        task = asyncio.current_task()
        assert task is not None
        resume: Callable[[Any], Any] = coroutine.send
        argument: Any = None
        while True:
            try:
                awaited = resume(argument)
            except StopIteration:
                return
            count += 1
            if count == point:
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                resume, argument = coroutine.send, (yield awaited)
            except BaseException as error:  # noqa: BLE001  # every exception is passed on
                resume, argument = coroutine.throw, error

    async def driven() -> None:
        await drive(run())

    task = asyncio.create_task(driven())
    await asyncio.wait([task])
    if count >= point:
        assert task.cancelled(), "CancelledError was swallowed"
        return True
    task.result()
    return False
