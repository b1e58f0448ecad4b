"""Garbage at full speed: what it does to memory, and how long it holds up the event loop.

``make hostile``, or ``python -m benchmarks.hostile [--seconds N]``. A peer in another process sends each kind of
garbage as fast as TCP takes it; beside the client, a task that wants to run every millisecond notes the longest that it
had to wait.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import os
import random
import socket
import sys
import time

from benchmarks.soak import resident
from tracer_async import TracerClient
from tracer_async.protocol import SYNC

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


def flood(server: socket.socket, garbage: bytes, seconds: float) -> None:
    """Send *garbage* to whoever connects, again and again."""
    connection, _ = server.accept()
    until = time.monotonic() + seconds
    sent = 0
    with connection:
        try:
            while time.monotonic() < until:
                sent += connection.send(garbage)
        except ConnectionError:
            pass


async def suffer(port: int, seconds: float) -> tuple[int, float, float, int]:
    """Return bytes received, seconds spent on it, the longest stall in seconds, and the growth of memory in bytes."""
    async with TracerClient(f"tcp://127.0.0.1:{port}", timeout=0.2, dead_after=10_000) as tracer:
        gc.collect()
        before = resident()
        grown = 0
        longest = 0.0
        frames = tracer.frames()  # full after 256, and nobody fetches
        reading = asyncio.create_task(poll(tracer))
        begun = last = time.monotonic()
        while last - begun < seconds:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            longest = max(longest, now - last - 0.001)
            last = now
            grown = max(grown, resident() - before)
        stats = tracer.stats
        reading.cancel()
        await asyncio.wait([reading])
        received = stats.noise_bytes + stats.frames * 36
        line = tracer._line
        assert line is not None
        corrupt = line._decoder.stats.corrupt_bytes
        del frames
        return received + corrupt, last - begun, longest, grown


async def poll(tracer: TracerClient) -> None:
    async for _ in tracer.poll(0.1):
        pass


def main() -> int:
    """Print a row a kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0, help="of each kind")
    options = parser.parse_args()
    print(f"{'kind':<32} {'MB':>8} {'MB/s':>8} {'longest stall':>14} {'memory grew by':>15}")
    bad = False
    for kind, garbage in KINDS.items():
        with socket.create_server(("127.0.0.1", 0)) as server:
            peer = multiprocessing.Process(target=flood, args=(server, garbage, options.seconds + 5), daemon=True)
            peer.start()
            received, seconds, stall, grown = asyncio.run(suffer(server.getsockname()[1], options.seconds))
            peer.kill()
            peer.join()
        print(
            f"{kind:<32} {received / 1e6:>8.1f} {received / seconds / 1e6:>8.2f} {stall * 1000:>11.1f} ms "
            f"{grown / 1e6:>12.2f} MB"
        )
        bad |= grown > 4_000_000
    print("cores:", os.cpu_count())
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
