"""Blocking calls in threads of their own, for what may hang: opening a serial port, resolving a name.

The event loop's default executor is never used: a few calls that hang would fill it, and everything else that needs it
would wait. Its threads are also joined at the end of `asyncio.run`. These threads are daemons, one for each call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextlib import suppress
from threading import Lock, Thread
from typing import Any, TypeVar

__all__ = ["call", "share"]

R = TypeVar("R")


def call(function: Callable[..., R], *args: Any, discard: Callable[[R], object] | None = None) -> asyncio.Future[R]:
    """Call *function* in a thread of its own.

    If the future is cancelled, or its event loop is closed, *discard* is called with a result that comes later.
    """
    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
    _start(lambda: _settle([future], *_outcome(function, args), discard), function)
    return future


_lock = Lock()
_shared: dict[Hashable, list[asyncio.Future[Any]]] = {}


def share(key: Hashable, function: Callable[..., R], *args: Any) -> asyncio.Future[R]:
    """Call *function* in a thread of its own, or wait for a call with the same *key* that is running already."""
    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
    with _lock:
        waiting = _shared.get(key)
        if waiting is not None:
            # Attempts to reach a name that hangs come again and again: those that gave up are not kept.
            waiting[:] = [other for other in waiting if not other.cancelled()]
            waiting.append(future)
            return future
        _shared[key] = [future]

    def run() -> None:
        outcome = _outcome(function, args)
        with _lock:
            futures = _shared.pop(key)
        _settle(futures, *outcome, None)

    try:
        _start(run, function)
    except BaseException:
        with _lock:
            del _shared[key]
        raise
    return future


def _start(run: Callable[[], None], function: Callable[..., Any]) -> None:
    Thread(target=run, name=f"tracer_async {getattr(function, '__name__', 'call')}", daemon=True).start()


def _outcome(function: Callable[..., R], args: tuple[Any, ...]) -> tuple[R | None, BaseException | None]:
    try:
        return function(*args), None
    except BaseException as error:  # noqa: BLE001  # raised again where the call is awaited
        # A future takes no StopIteration, and SystemExit is for the thread alone.
        return None, error if isinstance(error, Exception) and not isinstance(error, StopIteration) else OSError(error)


def _settle(
    futures: list[asyncio.Future[Any]],
    result: Any,
    error: BaseException | None,
    discard: Callable[[Any], object] | None,
) -> None:
    """Hand the outcome to the futures, each in its own event loop. Runs in the thread of the call."""

    def settle(future: asyncio.Future[Any]) -> None:
        if not future.cancelled():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        elif error is None and discard is not None:
            # Not here: what takes long to open may take long to close.
            Thread(target=discard, args=(result,), daemon=True).start()

    for future in futures:
        try:
            future.get_loop().call_soon_threadsafe(settle, future)
        except RuntimeError:  # the event loop is closed
            if error is None and discard is not None:
                with suppress(Exception):
                    discard(result)
