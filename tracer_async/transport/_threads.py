"""Blocking calls that may hang (opening a serial port, resolving a name), each in its own daemon thread.

The default executor of the event loop is not used: it has few threads, so a few calls that hang would block all others,
and the end of `asyncio.run` waits for its threads.
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
    """Call *function* in a new thread.

    If the future is cancelled, or its event loop is closed, *discard* is called with the result.
    """
    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
    _start(lambda: _settle([future], *_outcome(function, args), discard), function)
    return future


# Seconds after which a new caller starts another call instead of waiting for one that hangs, and the maximum number of
# running calls with one key.
_SHARE_TIME = 30.0
_MAX_CALLS = 4


class _Call:
    """One running call, and the futures that wait for it."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.futures: list[asyncio.Future[Any]] = []


_lock = Lock()
_shared: dict[Hashable, list[_Call]] = {}
if sys.platform != "win32":
    # A forked child has no threads: a lock held by one, or a call that one has started, would never end there.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
    os.register_at_fork(after_in_child=_shared.clear)


def share(key: Hashable, function: Callable[..., R], *args: Any) -> asyncio.Future[R]:
    """Call *function* in a new thread, or wait for a running call with the same *key*."""
    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
    with _lock:
        calls = _shared.setdefault(key, [])
        if calls and (len(calls) >= _MAX_CALLS or time.monotonic() < calls[-1].begun + _SHARE_TIME):
            call = calls[-1]
            # A client retries a name that hangs again and again. Drop the futures of attempts that were cancelled, so
            # that the list does not grow.
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
        # A future does not accept StopIteration, and SystemExit in this thread must not end the event loop.
        return None, error if isinstance(error, Exception) and not isinstance(error, StopIteration) else OSError(error)


def _settle(
    futures: list[asyncio.Future[Any]],
    result: Any,
    error: BaseException | None,
    discard: Callable[[Any], object] | None,
) -> None:
    """Set the outcome of the futures, each in its own event loop. Runs in the thread of the call."""

    def settle(future: asyncio.Future[Any]) -> None:
        if not future.cancelled():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        elif error is None and discard is not None:
            # In another thread: a driver that blocks while it opens a port may block while it closes it.
            Thread(target=discard, args=(result,), daemon=True).start()

    for future in futures:
        try:
            future.get_loop().call_soon_threadsafe(settle, future)
        except RuntimeError:  # the event loop is closed
            if error is None and discard is not None:
                with suppress(Exception):
                    discard(result)
