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

__all__ = ["call", "share", "wait_for_turn"]

R = TypeVar("R")

# Seconds after which another call with the same key may be started although one hangs, and the maximum number of
# running calls with one key. Another call may succeed: a device that was replaced has the name or path of the old one.
_PATIENCE = 30.0
_MAX_CALLS = 4


class _Call:
    """One running call, and the futures that wait for it."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.futures: list[asyncio.Future[Any]] = []

    def new_future(self) -> asyncio.Future[Any]:
        """Return a future that waits for this call. The caller holds the lock."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # A client tries to connect again and again while a call hangs. Drop the futures of attempts that were
        # cancelled, so that the list does not grow.
        self.futures[:] = [other for other in self.futures if not other.cancelled()]
        self.futures.append(future)
        return future


_lock = Lock()
_running: dict[Hashable, list[_Call]] = {}
if sys.platform != "win32":
    # A forked child has no threads: a lock held by one, or a call that one has started, would never end there.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
    os.register_at_fork(after_in_child=_running.clear)


def call(
    function: Callable[..., R], *args: Any, key: Hashable = None, discard: Callable[[R], object] | None = None
) -> asyncio.Future[R]:
    """Call *function* in a new thread. `wait_for_turn` with the same *key* waits for its end.

    If the future is cancelled, or its event loop is closed, *discard* is called with the result.
    """
    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
    key = object() if key is None else key
    running = _Call()
    with _lock:
        _running.setdefault(key, []).append(running)

    def run() -> None:
        result, error = _outcome(function, args)
        if error is None and discard is not None and future.cancelled():
            # Before the next call may begin: it must not find the port still open.
            _discard(discard, result)
        else:
            _settle([future], result, error, discard, key)
        _end(key, running)
        _settle(running.futures, None, None)

    _start(run, function, key, running)
    return future


async def wait_for_turn(key: Hashable) -> None:
    """Wait until no call with *key* is running, or until another one may be started although some hang."""
    while True:
        with _lock:
            running = _to_wait_for(key)
            if running is None:
                return
            ended = running.new_future()
        await ended


def share(key: Hashable, function: Callable[..., R], *args: Any) -> asyncio.Future[R]:
    """Call *function* in a new thread, or wait for the result of a running call with the same *key*."""
    with _lock:
        joined = _to_wait_for(key)
        if joined is not None:
            return joined.new_future()
        running = _Call()
        future = running.new_future()
        _running.setdefault(key, []).append(running)

    def run() -> None:
        outcome = _outcome(function, args)
        _end(key, running)
        _settle(running.futures, *outcome)

    _start(run, function, key, running)
    return future


def _to_wait_for(key: Hashable) -> _Call | None:
    """Return the running call to wait for, or None if another one may be started. The caller holds the lock."""
    calls = _running.get(key, [])
    if not calls or (len(calls) < _MAX_CALLS and time.monotonic() >= calls[-1].begun + _PATIENCE):
        return None
    return calls[-1]


def _end(key: Hashable, running: _Call) -> None:
    with _lock:
        calls = _running.get(key, [])
        if running in calls:
            calls.remove(running)
        if not calls:
            _running.pop(key, None)


def _start(run: Callable[[], None], function: Callable[..., Any], key: Hashable, running: _Call) -> None:
    try:
        Thread(target=run, name=f"tracer_async {getattr(function, '__name__', 'call')}", daemon=True).start()
    except BaseException:
        _end(key, running)
        raise


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
    discard: Callable[[Any], object] | None = None,
    key: Hashable = None,
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
            call(_discard, discard, result, key=key)

    for future in futures:
        try:
            future.get_loop().call_soon_threadsafe(settle, future)
        except RuntimeError:  # the event loop is closed
            if error is None and discard is not None:
                _discard(discard, result)


def _discard(discard: Callable[[Any], object], result: Any) -> None:
    with suppress(Exception):
        discard(result)
