"""A serial line: polls through a pseudo-terminal, with the pace of 9600 baud and without.

``--contender NAME --path PATH --polls N`` measures one of them in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from functools import partial
from typing import Any, NamedTuple, cast

from benchmarks.contenders import Ask, Contenders, available
from benchmarks.measure import (
    Effort,
    Spread,
    heard,
    interleaved,
    percentile,
    ratios,
    run_loop,
    running,
    say,
    settle_malloc,
)
from benchmarks.page import Row, Table, Target, main
from benchmarks.replies import REPLY_SIZE, REQUEST, replies
from tracer_async import TracerClient

COMMAND = "python -m benchmarks.serial_line"

BYTE_TIME = 10 / 9600
WIRE_TIME = (len(REQUEST) + REPLY_SIZE) * BYTE_TIME
"""Seconds that a poll takes on the wire: 56.25 ms."""

PROJECT = "tracer_async, pyserial-asyncio"
BARE = "bare pyserial-asyncio, a Protocol"
STREAMS = "bare pyserial-asyncio, its streams"

Contender = Callable[[str], AbstractAsyncContextManager[Ask]]


class _Bare(asyncio.Protocol):
    """Counts bytes until a reply is there: no parsing, no CRC, no time-out."""

    def __init__(self) -> None:
        self._received = 0
        self._answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received >= REPLY_SIZE and self._answered is not None:
            self._received = 0
            self._answered.set_result(None)

    async def ask(self) -> None:
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(REQUEST)
        await self._answered


@asynccontextmanager
async def _bare_pyserial(path: str) -> AsyncIterator[Ask]:
    import serial_asyncio

    loop = asyncio.get_running_loop()
    transport, made = await serial_asyncio.create_serial_connection(loop, _Bare, path, baudrate=9600)
    with closing(transport):
        await asyncio.sleep(0.01)
        yield made.ask


@asynccontextmanager
async def _bare_streams(path: str) -> AsyncIterator[Ask]:
    import serial_asyncio

    reader, writer = await serial_asyncio.open_serial_connection(url=path, baudrate=9600)

    async def ask() -> None:
        writer.write(REQUEST)
        await writer.drain()
        await reader.readexactly(REPLY_SIZE)

    with closing(writer):
        yield ask


@asynccontextmanager
async def _bare_serialx(path: str) -> AsyncIterator[Ask]:
    import serialx

    transport, made = await serialx.create_serial_connection(asyncio.get_running_loop(), _Bare, path, 9600)
    with closing(transport):
        yield cast(_Bare, made).ask


@asynccontextmanager
async def _tracer(backend: str, path: str) -> AsyncIterator[Ask]:
    async with TracerClient(f"serial://{path}?backend={backend}") as tracer:
        yield tracer.read_realtime


CONTENDERS: Contenders[Contender] = {
    BARE: (_bare_pyserial, "serial_asyncio"),
    STREAMS: (_bare_streams, "serial_asyncio"),
    PROJECT: (partial(_tracer, "pyserial"), "serial_asyncio"),
    "bare serialx": (_bare_serialx, "serialx"),
    "tracer_async, serialx": (partial(_tracer, "serialx"), "serialx"),
}


def respond(byte_time: float) -> None:
    """Be the controller on a new pseudo-terminal: answer each request when a wire would have carried both.

    It polls the clock for the last 0.2 ms, because a sleep is not exact enough for this measurement.
    """
    import tty

    controller, terminal = os.openpty()
    tty.setraw(terminal)
    say(os.ttyname(terminal))
    answers = replies(256)
    number = received = 0
    wire_time = (len(REQUEST) + REPLY_SIZE) * byte_time
    while True:
        data = os.read(controller, 4096)
        if not received:
            ready = time.perf_counter() + wire_time
        received += len(data)
        if received < len(REQUEST):
            continue
        received = 0
        if byte_time:
            time.sleep(max(0.0, ready - time.perf_counter() - 0.0002))
            while time.perf_counter() < ready:
                pass
        number += 1
        os.write(controller, answers[number & 255])


class Polls(NamedTuple):
    """What one contender did in one process."""

    times: list[float]
    """Seconds that each poll took."""
    wall: float
    """Seconds that all of them took."""
    cpu: float
    """Microseconds of CPU each."""


async def _measure(name: str, path: str, polls: int) -> Polls:
    settle_malloc()
    async with CONTENDERS[name][0](path) as ask:
        for _ in range(3):
            await ask()
        times = []
        used, begun = time.process_time(), time.perf_counter()
        for _ in range(polls):
            asked = time.perf_counter()
            await ask()
            times.append(time.perf_counter() - asked)
        wall = time.perf_counter() - begun
        return Polls(times, wall, 1e6 * (time.process_time() - used) / polls)


def measured(name: str, polls: int, byte_time: float) -> Polls:
    """Measure one contender in a fresh process, on a fresh line."""
    with running("serial_line", "--respond", byte_time) as responder:
        what = ("--contender", name, "--path", heard(responder), "--polls", polls)
        with running("serial_line", *what) as contender:
            return Polls(*heard(contender))


def run(effort: Effort) -> Row:
    """Measure all of them."""
    names, notes = available(CONTENDERS, effort.pick(tuple(CONTENDERS), tuple(CONTENDERS), (BARE, PROJECT)))
    paced = interleaved(
        {name: partial(measured, name, effort.pick(100, 20, 2), BYTE_TIME) for name in names}, effort.pick(7, 2, 1)
    )
    unpaced = interleaved(
        {name: partial(measured, name, effort.pick(5000, 1000, 3), 0.0) for name in names}, effort.pick(7, 3, 1)
    )
    rows = []
    targets = []
    for name in names:
        over = [[1e3 * (taken - WIRE_TIME) for taken in polls.times] for polls in paced[name]]
        late = Spread.of(percentile(taken, 0.99) for taken in over)
        share = Spread.of(100 * WIRE_TIME * len(polls.times) / polls.wall for polls in paced[name])
        rows.append(
            (
                name,
                share.text("{:.2f}"),
                Spread.of(percentile(taken, 0.5) for taken in over).text("{:.3f}"),
                late.text("{:.3f}"),
                Spread.of(polls.cpu for polls in paced[name]).text(),
                Spread.of(polls.cpu for polls in unpaced[name]).text(),
            )
        )
        if name.startswith("tracer_async"):
            targets += [
                Target(f"{name}: rate", "at least 99 % of the line's", f"{share.text('{:.2f}')} %", share.median >= 99),
                Target(
                    f"{name}: p99 over the wire time", "under 0.5 ms", f"{late.text('{:.2f}')} ms", late.median < 0.5
                ),
            ]
    if PROJECT in names:
        for kind, results in (("paced", paced), ("unpaced", unpaced)):
            for peer in (BARE, STREAMS):
                if peer in results:
                    more = ratios([polls.cpu for polls in results[PROJECT]], [polls.cpu for polls in results[peer]])
                    text = f"{more.text('{:.2f}')} times"
                    targets.append(Target(f"CPU a poll, {kind}", f"at most that of {peer}", text, more.median <= 1))
    return Row(
        "Serial line",
        COMMAND,
        f"Polls one after the other through a pseudo-terminal: {len(REQUEST)} bytes out, {REPLY_SIZE} back, which "
        f"takes {1e3 * WIRE_TIME:.2f} ms at 9600 baud. The other end is another process. It sends the whole reply "
        "when a wire would have delivered the last byte. A bare contender only counts bytes until the reply is "
        "complete. CPU is the process time of the contender, with and without the pace. With the pace it includes "
        "going to sleep and waking up.",
        targets,
        [
            Table(
                "",
                ("contender", "% of line rate", "over wire time, ms: p50", "p99", "CPU a poll, µs: paced", "unpaced"),
                rows,
            )
        ],
        notes,
    )


def _command_line() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--contender")
    parser.add_argument("--path")
    parser.add_argument("--polls", type=int)
    parser.add_argument("--respond", type=float)
    options = parser.parse_args()
    if options.respond is not None:
        with suppress(OSError):  # the terminal disappears when its last user closes it
            respond(options.respond)
        return 0
    call: Callable[[], Any] = partial(_measure, options.contender, options.path, options.polls)
    say(run_loop(call, "asyncio"))
    return 0


if __name__ == "__main__":
    sys.exit(_command_line() if {"--contender", "--respond"} & set(sys.argv) else main(run))
