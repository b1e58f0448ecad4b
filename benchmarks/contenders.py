"""Shared code of the benchmarks that run contenders in processes: availability, Modbus clients, arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Any, TypeVar

from benchmarks.measure import Effort, has, pin, python_with, run_loop, why_without
from benchmarks.page import Row, main

C = TypeVar("C")
Ask = Callable[[], Awaitable[object]]

Contenders = Mapping[str, tuple[C, str]]
"""Contenders by name, each with the package that it needs."""


def available(
    contenders: Contenders[Any], names: Iterable[str], *, on_uvloop: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Return the interpreter for each contender that can run here, and why the others cannot."""
    notes = [f"uvloop: {why_without('uvloop')}."] if on_uvloop and not has("uvloop") else []
    pythons = {}
    for name in names:
        package = contenders[name][1]
        python = python_with(package)
        if python is None:
            notes.append(f"{name}: {why_without(package)}.")
        else:
            pythons[name] = python
    return pythons, notes


def label(name: str, python: str) -> str:
    """Return the name of a contender in a table; one that runs on another Python says so."""
    return name if python == sys.executable else f"{name} (newer Python)"


def start(run: Callable[[Effort], Row], contend: Callable[..., Awaitable[None]], **options: type) -> int:
    """Follow the command line: *run* the benchmark, or run one contender in this process.

    A contender is ``contend(name, port, **options)`` on the event loop that the command line names, on the first core.
    """
    if "--contender" not in sys.argv:
        return main(run)
    parser = argparse.ArgumentParser()
    parser.add_argument("--contender", required=True)
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--port", type=int, required=True)
    for name, kind in options.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    arguments = parser.parse_args()
    pin(0)
    given = {name: getattr(arguments, name) for name in options}
    run_loop(partial(contend, arguments.contender, arguments.port, **given), arguments.loop)
    return 0


@asynccontextmanager
async def pymodbus_client(port: int) -> AsyncIterator[Any]:
    """A connected client of pymodbus."""
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    assert await client.connect()
    with closing(client):
        yield client


@asynccontextmanager
async def tmodbus_client(port: int) -> AsyncIterator[Any]:
    """A connected client of tmodbus."""
    from tmodbus import create_async_tcp_client  # type: ignore[import-not-found,unused-ignore]  # needs Python 3.12

    client = create_async_tcp_client("127.0.0.1", port, unit_id=1)
    async with client:
        yield client
