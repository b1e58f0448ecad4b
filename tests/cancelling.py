"""Cancel a coroutine at a chosen suspension point."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any


async def cancelled_at(point: int, coroutine: Coroutine[Any, Any, object]) -> bool:
    """Run *coroutine* in a task of its own, cancel it as it suspends for the *point*-th time.

    Return whether it suspended so often. Fails unless CancelledError came through then.
    """
    count = 0

    @types.coroutine
    def drive() -> Generator[Any, Any, None]:
        nonlocal count
        resume = coroutine.send
        argument: Any = None
        while True:
            try:
                awaited = resume(argument)
            except StopIteration:
                return
            count += 1
            if count == point:
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                argument = yield awaited
                resume = coroutine.send
            except BaseException as error:  # noqa: BLE001  # handed on, whatever it is
                argument = error
                resume = coroutine.throw

    async def run() -> None:
        await drive()

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if count < point:
        await task
        return False
    assert task.cancelled() or task.exception() is None
    return task.cancelled()
