"""Starts writers of a history and kills each at a random moment: ``killed_writer.py DIRECTORY ROUNDS``.

Writes a line for each: its number, and how many readings it had been told to be in the database before it was killed.
The writers are forked, because importing everything takes longer than they live.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.gateway.history.events import START, event, values
from tracer_async.gateway.config import HistoryConfig
from tracer_async.gateway.history.store import HistoryOutput


async def write(directory: Path, number: int, pipe: int) -> None:
    config = HistoryConfig().model_copy(update={"flush_seconds": 0.001})
    output = HistoryOutput(config, directory=directory, zone=None)
    running = asyncio.create_task(output.run())
    data = values(number)
    published = 0
    while not running.done():
        for _ in range(random.randrange(1, 50)):
            output.publish(event(START + 86_400 * number + published, data))
            published += 1
        # Not faster: a first batch of many thousand readings takes longer than a slow machine lets the writer live.
        await asyncio.sleep(0.005)
        os.write(pipe, output.state.delivered.to_bytes(8))
    await running


def main() -> None:
    rng = random.Random(1)
    for number in range(int(sys.argv[2])):
        reading_end, writing_end = os.pipe()
        writer = os.fork()
        if writer == 0:
            asyncio.run(write(Path(sys.argv[1]), number, writing_end))
            os._exit(1)
        os.close(writing_end)
        killed_at = time.monotonic() + rng.uniform(0.0, 0.5)
        acknowledged = b""
        os.set_blocking(reading_end, False)
        while time.monotonic() < killed_at:
            try:
                acknowledged = (acknowledged + os.read(reading_end, 1 << 16))[-16:]
            except BlockingIOError:
                time.sleep(0.001)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        while data := os.read(reading_end, 1 << 16):
            acknowledged += data
        os.close(reading_end)
        end = len(acknowledged) // 8 * 8
        sys.stdout.write(f"{number} {int.from_bytes(acknowledged[end - 8 : end])}\n")


if __name__ == "__main__":
    main()
