from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import pytest

from tests.drivers import selected
from tests.links import LINKS, Link
from tests.peer import Peer

T = TypeVar("T")

# A process that a script or nohup starts in the background ignores SIGINT, and its child processes inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--event-loop", choices=["asyncio", "eager", "uvloop"], help="event loop of the asynchronous tests"
    )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each asynchronous test on the selected event loop."""
    name = config.getoption("--event-loop") or "asyncio"
    if name == "uvloop":
        import uvloop

        return {name: uvloop.new_event_loop}
    return {name: eager_loop if name == "eager" else asyncio.new_event_loop}


def eager_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose tasks start to run when they are created (Python 3.12)."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


@pytest.fixture(params=LINKS)
async def link(request: pytest.FixtureRequest) -> AsyncIterator[Link]:
    """A simulated controller behind each kind of transport in turn."""
    async with entered_in_one_task(request.param(require)) as link:
        yield link


@pytest.fixture(params=["asyncio", "blocking"])
def driver(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run the test with the asyncio client and with the blocking client. It must use `client_of`."""
    with selected(request.param):
        yield


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A TCP server that the test controls."""
    async with Peer() as peer:
        yield peer


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Undo what the command line sets up in this process. Otherwise later tests would find no log records."""
    loggers = [logging.getLogger(name) for name in (None, "tracer_async", "tracer_async.wire")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@asynccontextmanager
async def entered_in_one_task(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave *context* in the same task, as anyio requires. pytest-asyncio uses two tasks for a fixture."""
    entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        try:
            async with context as value:
                entered.set_result(value)
                await leave.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    task = asyncio.create_task(hold())
    yield await entered
    leave.set()
    await task


def require(program: str) -> str:
    """Return the path of a system program. If it is missing, the test fails in CI and is skipped elsewhere."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is not None:
        return path
    if os.environ.get("TRACER_ASYNC_PEERS") == "required":
        pytest.fail(f"{program} is not installed, and TRACER_ASYNC_PEERS=required")
    pytest.skip(f"{program} is not installed")


@pytest.fixture(name="require")
def require_fixture() -> Callable[[str], str]:
    return require
