"""The asyncio client and the blocking client behind the same asynchronous methods, so that a test can run with both.

A test that asks for the fixture ``driver`` runs twice. `client_of` then returns a client of the one or the other
kind.
Each call of the blocking client runs in a thread of its own. In virtual time only one of loop and thread runs at any
moment: the thread hands over to the loop whenever it waits or writes.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

import tracer_async
from tracer_async import sync
from tracer_async.sync import _client, _conversation, _driver
from tracer_async.sync._bell import Bell

_blocking = False

both_drivers = pytest.mark.usefixtures("driver")


def client_of(url: Any, **options: Any) -> tracer_async.TracerClient:
    """A client of the kind that the test runs with."""
    if not _blocking:
        return tracer_async.TracerClient(url, **options)
    kind = _Virtual if callable(url) else _Threaded
    return cast("tracer_async.TracerClient", kind(url, **options))


@contextmanager
def selected(name: str) -> Iterator[None]:
    """Use the driver "asyncio" or "blocking"."""
    global _blocking  # noqa: PLW0603
    _blocking = name == "blocking"
    with pytest.MonkeyPatch.context() as patch:
        clock = SimpleNamespace(monotonic=lambda: _in_thread().time(), time=time.time)
        for module in (_client, _driver, _conversation):
            patch.setattr(module, "time", clock)
        patch.setattr(_driver, "Bell", lambda: _in_thread().bell())
        try:
            yield
        finally:
            _blocking = False


class _Threaded:
    """The blocking client, each call in a thread."""

    def __init__(self, url: Any, **options: Any) -> None:
        self._client = sync.TracerClient(url, **options)

    async def _call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            try:
                settle, outcome = done.set_result, function(*args, **options)
            except Exception as error:  # noqa: BLE001  # raised again in the event loop
                settle, outcome = done.set_exception, error
            loop.call_soon_threadsafe(settle, outcome)

        threading.Thread(target=run, daemon=True).start()
        return await done

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        await self._call(self._client.open)

    async def aclose(self) -> None:
        await self._call(self._client.close)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        return (lambda *args, **options: self._call(value, *args, **options)) if callable(value) else value


# Virtual time.

_threads = threading.local()


def _in_thread() -> Any:
    """Return the clock and the bell of this thread: those of a virtual client, or the real ones."""
    return getattr(_threads, "virtual", None) or SimpleNamespace(time=time.monotonic, bell=Bell)


class _Virtual(_Threaded):
    """The blocking client in an event loop of virtual time, connected by a transport factory.

    Concurrent calls take turns.
    """

    def __init__(self, connect: Callable[[Any], Awaitable[Any]], **options: Any) -> None:
        super().__init__("tcp://127.0.0.1:1", **options)
        self._client._opener = self._open
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._to_loop: queue.Queue[Callable[[], Awaitable[Any]] | None] = queue.Queue()
        self._to_thread: queue.Queue[Any] = queue.Queue()
        self._turn = asyncio.Lock()
        self.wire: _VirtualWire | None = None
        self.is_rung = False

    async def _call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        outcome: list[Any] = []

        def run() -> None:
            _threads.virtual = self
            try:
                outcome.extend((function(*args, **options), None))
            except BaseException as error:  # noqa: BLE001  # raised again in the event loop
                outcome.extend((None, error))
            self._to_loop.put(None)

        async with self._turn:
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            # The loop is blocked here while the thread runs, so virtual time stands still.
            while (task := self._to_loop.get()) is not None:
                self._to_thread.put(await task())
            thread.join()
        result, error = outcome
        if error is not None:
            raise error
        return result

    def in_loop(self, task: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine in the event loop. Only for the thread."""
        self._to_loop.put(task)
        return self._to_thread.get()

    def _open(self, timeout: float, local_address: object) -> _VirtualWire:
        self.wire = wire = _VirtualWire(self)

        async def connect() -> None:
            wire.transport = (await self._connect(lambda: wire))[0]

        self.in_loop(connect)
        return wire

    # The clock and the bell of the thread.

    def time(self) -> float:
        return self._loop.time()

    def bell(self) -> Self:
        return self

    def attach(self, descriptor: int) -> None:
        pass

    def ring(self) -> None:
        self.is_rung = True

    def close(self) -> None:
        pass

    def wait(self, seconds: float, *, output: bool = False) -> None:
        # Rounded up as by the real one: otherwise virtual time could stand still.
        seconds = math.ceil(seconds * 1000) / 1000

        async def wait() -> None:
            if self.wire is None:
                await asyncio.sleep(seconds)
            elif seconds > 0:
                waiting = asyncio.create_task(self.wire.came.wait())
                await asyncio.wait([waiting], timeout=seconds)
                waiting.cancel()

        self.in_loop(wait)


class _VirtualWire:
    """A `Wire`, and the protocol object of a transport."""

    descriptor = -1
    unsent = b""

    def __init__(self, client: _Virtual) -> None:
        self._client = client
        self.transport: Any = None
        self._received = b""
        self._lost = False
        self.came = asyncio.Event()

    def connection_made(self, transport: object) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        self._received += data
        self.came.set()

    def connection_lost(self, error: object) -> None:
        self._lost = True
        self.came.set()

    def read(self) -> tuple[bytes, bool]:
        data, self._received = self._received, b""
        if not data and self._lost:
            raise EOFError
        if not self._lost:
            self.came.clear()
        return data, True

    def write(self, data: bytes) -> None:
        async def write() -> None:
            self.transport.write(data)

        if data:
            self._client.in_loop(write)

    def next_input(self, now: float) -> None:
        pass

    def discard_output(self) -> bool:
        return False

    def close(self, *, discard: bool) -> None:
        async def close() -> None:
            self.transport.abort()

        self._client.wire = None
        self._client.in_loop(close)
