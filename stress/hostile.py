"""Garbage: how much memory and CPU it costs, and how long it blocks the event loop.

``make hostile``, or ``python -m stress.hostile [--seconds N]``. A peer in another process sends each kind of garbage,
first as fast as TCP accepts it, then just below the flood limit. Above the limit the client closes the connection and
reconnects with backoff. A second task, which is due every millisecond, records its longest delay.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import multiprocessing
import os
import random
import socket
import sys
import time
from contextlib import suppress
from typing import NamedTuple

from stress.clients import resident
from tracer_async import TracerClient
from tracer_async.protocol import SYNC
from tracer_async.protocol._reception import FLOOD_RATE

KINDS = {
    "random bytes": random.Random(1).randbytes(1 << 20),
    "only EB 90": b"\xeb\x90" * (1 << 19),
    "headers that claim 200 bytes": (SYNC + b"\x00\xa0\xc8") * 100_000,
    "headers whose claim ends in 7F": (SYNC + b"\x00\xa0\xc6\x7f") * 100_000,
    "good frames nobody asked for": bytes.fromhex(
        "eb90eb90eb9000a018dc04500d000000005904980500000029000000013a760100d9697f"
    )
    * 30_000,
}

_MOST_GROWTH = 4_000_000

# Bytes, and a rate in bytes/s just below the flood limit.
_CHUNK = 4096
_BELOW = 0.9 * FLOOD_RATE


class Suffering(NamedTuple):
    """The effect of garbage on a client."""

    cpu: float
    """Part of one core that the process took."""
    stall: float
    """The longest time for which the event loop was blocked, in seconds."""
    grown: int
    """The maximum growth of memory, in bytes."""
    links: int
    """How often the link was established."""


def flood(server: socket.socket, garbage: bytes, rate: float | None) -> None:
    """Send *garbage* to each client, repeatedly, at *rate* bytes/s. None: as fast as the client reads."""
    while True:
        connection, _ = server.accept()
        with connection, suppress(ConnectionError):
            while rate is None:
                connection.sendall(garbage)
            begun, sent = time.monotonic(), 0
            while True:
                at = sent % (len(garbage) - _CHUNK)
                connection.sendall(garbage[at : at + _CHUNK])
                sent += _CHUNK
                time.sleep(max(0.0, begun + sent / rate - time.monotonic()))


async def suffer(port: int, seconds: float) -> Suffering:
    """Poll a peer that sends garbage, for some seconds."""
    async with TracerClient(
        f"tcp://127.0.0.1:{port}", timeout=0.2, max_timeouts=10_000, backoff=(0.1, 1.0), start_offline=True
    ) as tracer:
        gc.collect()
        memory, cpu = resident(), time.process_time()
        grown, longest = 0, 0.0
        frames = tracer.frames()  # full after 256, and nobody fetches
        polling = asyncio.create_task(_poll(tracer))
        begun = last = time.monotonic()
        while last - begun < seconds:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            longest = max(longest, now - last - 0.001)
            last = now
            grown = max(grown, resident() - memory)
        cpu = time.process_time() - cpu
        polling.cancel()
        await asyncio.wait([polling])
        del frames
        return Suffering(cpu / (last - begun), longest, grown, tracer.stats.links)


async def _poll(tracer: TracerClient) -> None:
    async for _ in tracer.poll(0.1):
        pass


def main() -> int:
    """Print two rows for each kind."""
    parser = argparse.ArgumentParser(prog="python -m stress.hostile", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each kind, at each rate")
    options = parser.parse_args()
    logging.disable()  # of lost links
    print(f"{'kind':<32} {'rate':<12} {'links':>6} {'CPU':>6} {'longest stall':>14} {'memory grew by':>15}")
    bad = False
    for kind, garbage in KINDS.items():
        for rate in (None, _BELOW):
            with socket.create_server(("127.0.0.1", 0)) as server:
                peer = multiprocessing.Process(target=flood, args=(server, garbage, rate), daemon=True)
                peer.start()
                came = asyncio.run(suffer(server.getsockname()[1], options.seconds))
                peer.kill()
                peer.join()
            speed = "full speed" if rate is None else f"{rate / 1024:.0f} KiB/s"
            print(
                f"{kind:<32} {speed:<12} {came.links:>6} {came.cpu:>5.0%} {came.stall * 1000:>11.1f} ms "
                f"{came.grown / 1e6:>12.2f} MB",
                flush=True,
            )
            bad |= came.grown > _MOST_GROWTH or (rate is not None and came.links != 1)
    print("cores:", os.cpu_count())
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
