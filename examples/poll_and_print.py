"""Print a line every few seconds, with or without a connection.

``python examples/poll_and_print.py [URL [INTERVAL [COUNT]]]``
"""

import asyncio
import sys
from contextlib import suppress
from datetime import UTC, datetime

from tracer_async import TracerClient


async def main(url: str, interval: float, count: int) -> None:
    """Print *count* readings, or without end if *count* is 0. A failed reading has an error; the loop continues."""
    async with TracerClient(url, start_offline=True) as tracer:
        async for reading in tracer.poll(interval):
            time = datetime.fromtimestamp(reading.time, UTC).strftime("%H:%M:%S")
            if reading.data is None:
                print(time, reading.error)
            else:
                print(time, f"{reading.data.battery_voltage:.2f} V", f"{reading.data.charge_current:.2f} A")
            count -= 1
            if count == 0:
                break


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *("sim:", "5", "0")[len(sys.argv) - 1 :]]
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the program without a traceback
        asyncio.run(main(arguments[0], float(arguments[1]), int(arguments[2])))
