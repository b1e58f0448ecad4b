"""Blocking calls in threads of their own, for what may hang: opening a serial port, resolving a name.

The event loop's default executor is never used: a few calls that hang would fill it, and everything else that needs it
would wait. Its threads are also joined at the end of `asyncio.run`. These threads are daemons, one for each call.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
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


# Seconds after which a call that hangs is not waited for by new callers, and how many calls with one key may hang.
_PATIENCE = 30.0
_MAX_CALLS = 4


class _Call:
    """One running call, and who waits for it."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.futures: list[asyncio.Future[Any]] = []


_lock = Lock()
_shared: dict[Hashable, list[_Call]] = {}
if sys.platform != "win32":
    # The threads of the parent do not exist in its child.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
    os.register_at_fork(after_in_child=_shared.clear)


def share(key: Hashable, function: Callable[..., R], *args: Any) -> asyncio.Future[R]:
    """Call *function* in a thread of its own, or wait for a call with the same *key* that is running already."""
    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
    with _lock:
        calls = _shared.setdefault(key, [])
        if calls and (len(calls) >= _MAX_CALLS or time.monotonic() < calls[-1].begun + _PATIENCE):
            call = calls[-1]
            # Attempts to reach a name that hangs come again and again: those that gave up are not kept.
            call.futures[:] = [other for other in call.futures if not other.cancelled()]
            call.futures.append(future)
            return future
        call = _Call()
        call.futures.append(future)
        calls.append(call)

    def run() -> None:
        outcome = _outcome(function, args)
        _end(key, call)
        _settle(call.futures, *outcome, None)

    try:
        _start(run, function)
    except BaseException:
        _end(key, call)
        raise
    return future


def _end(key: Hashable, call: _Call) -> None:
    with _lock:
        calls = _shared.get(key, [])
        if call in calls:
            calls.remove(call)
        if not calls:
            _shared.pop(key, None)


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
