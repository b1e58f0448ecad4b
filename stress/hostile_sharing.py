"""Hostile programs at a shared controller: latency of the other programs and memory, without and with them.

``python -m stress.hostile_sharing [--seconds N]``.

A process shares a simulated controller at 9600 baud. Eight programs read once a second each. Another process attacks:
garbage and requests at full speed, half frames, programs that never read, and 500 connections. The report compares the
99th percentile of the latency, and the memory of the process that shares the controller.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

__all__ = ["main"]

_READ = bytes.fromhex("EB90EB90EB9016A000B1A77F")
_PROGRAMS = 8
_CONNECTIONS = 500


@contextmanager
def _command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tracer_async", *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


# The attack.


async def _write_forever(port: int, data: bytes) -> None:
    _, writer = await _connect(port)
    try:
        while True:
            writer.write(data)
            await writer.drain()
    finally:
        writer.transport.abort()


async def _never_read(port: int) -> None:
    reader, writer = await _connect(port)
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    try:
        while True:
            writer.write(_READ)
            await asyncio.sleep(0.3)
    finally:
        del reader
        transport.abort()


async def _half_frames(port: int) -> None:
    _, writer = await _connect(port)
    try:
        while True:
            writer.write(random.choice([_READ[:-1], _READ[:8] + b"\xc8", _READ[:6]]))
            await asyncio.sleep(0.1)
    finally:
        writer.transport.abort()


async def _many_connections(port: int) -> None:
    while True:
        writers = []
        for _ in range(_CONNECTIONS):
            with suppress(OSError):
                writers.append((await _connect(port))[1])
        await asyncio.sleep(1)
        for writer in writers:
            writer.transport.abort()


async def _attack(port: int) -> None:
    async def again(attack: Callable[[], Awaitable[None]]) -> None:
        while True:
            with suppress(OSError):
                await attack()
            await asyncio.sleep(0.1)

    garbage = random.randbytes(65536)
    attacks: list[Callable[[], Awaitable[None]]] = [
        *[lambda: _write_forever(port, garbage)] * 3,
        lambda: _write_forever(port, b"\xeb\x90" * 30000),
        *[lambda: _write_forever(port, _READ * 5000)] * 3,
        *[lambda: _never_read(port)] * 3,
        *[lambda: _half_frames(port)] * 3,
        lambda: _many_connections(port),
    ]
    await asyncio.gather(*map(again, attacks))


# The programs whose latency counts.


async def _use(port: int, seconds: float, latencies: list[float]) -> int:
    reader, writer = await _connect(port)
    silent = 0
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            begun = time.monotonic()
            writer.write(_READ)
            try:
                async with asyncio.timeout(1.0):
                    await reader.readexactly(36)
                latencies.append(time.monotonic() - begun)
            except TimeoutError:
                silent += 1
            await asyncio.sleep(random.uniform(0.5, 1.5))
    finally:
        writer.transport.abort()
    return silent


async def _measure(port: int, seconds: float) -> tuple[list[float], int]:
    latencies: list[float] = []
    silent = await asyncio.gather(*(_use(port, seconds, latencies) for _ in range(_PROGRAMS)))
    return sorted(latencies), sum(silent)


def _report(name: str, latencies: list[float], silent: int, memory: int) -> float:
    p50, p99 = (1000 * latencies[int(len(latencies) * share)] for share in (0.5, 0.99))
    print(
        f"{name:<10} {len(latencies):>6,} replies, {silent} requests without one, p50 {p50:.0f} ms, p99 {p99:.0f} ms, "
        f"memory {memory / 1e6:.1f} MB, load average {os.getloadavg()[0]:.1f}"
    )
    return p99


def main() -> int:
    """Measure without and with the attack."""
    parser = argparse.ArgumentParser(prog="python -m stress.hostile_sharing")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--attack", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        logging.disable()  # of connections that the other side has closed there are thousands
        asyncio.run(_attack(options.attack))
        return 0
    with (
        _command("simulate", "--pty", "--baud-pacing") as (_, url),
        _command("share", url, "--tcp", "127.0.0.1:0") as (hub, served),
    ):
        port = int(served.rpartition(":")[2])
        memory = psutil.Process(hub.pid).memory_info
        alone = _report("alone", *asyncio.run(_measure(port, options.seconds)), memory().rss)
        attack = subprocess.Popen([sys.executable, "-m", "stress.hostile_sharing", f"--attack={port}"])
        try:
            attacked = _report("attacked", *asyncio.run(_measure(port, options.seconds)), memory().rss)
        finally:
            attack.kill()
            attack.wait()
    print(f"p99 is {attacked / alone:.2f} times as long during the attack")
    return 0 if attacked <= 2 * alone else 1


if __name__ == "__main__":
    sys.exit(main())
