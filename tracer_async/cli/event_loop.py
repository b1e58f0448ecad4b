"""Runs a coroutine of a command in an event loop, and ends it in order at Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import NoReturn

import anyio

from tracer_async.cli.exit_codes import ExitCode

__all__ = ["run_async"]


def run_async(command: Callable[[], Awaitable[None]], *, on_sigterm: ExitCode = ExitCode.TERMINATED) -> None:
    """Run *command* to its end. Ctrl-C and SIGTERM cancel it, so that it leaves links and the terminal in order.

    Raises the error of *command*, alone and not in a group; KeyboardInterrupt after Ctrl-C, SystemExit after SIGTERM.
    """
    terminated = False

    async def supervise() -> None:
        async with anyio.create_task_group() as tasks:

            async def watch_for_sigterm() -> None:
                nonlocal terminated
                with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                    async for _ in signals:
                        terminated = True
                        tasks.cancel_scope.cancel()

            if sys.platform != "win32":  # Windows has no such signal
                tasks.start_soon(watch_for_sigterm)
            await command()
            tasks.cancel_scope.cancel()

    try:
        anyio.run(supervise, backend_options={"use_uvloop": find_spec("uvloop") is not None})
    except BaseExceptionGroup as group:
        _raise_first(group)
    if terminated:
        raise SystemExit(on_sigterm)


def _raise_first(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    raise error
