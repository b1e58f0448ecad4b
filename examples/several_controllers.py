"""Read several controllers at once: ``python examples/several_controllers.py URL URL ...``."""

import asyncio
import sys
from contextlib import suppress

from tracer_async import TracerClient, TracerError


async def read(url: str) -> None:
    """Print one reading or the error. An error of one controller does not affect the others."""
    try:
        async with TracerClient(url) as tracer:
            data = await tracer.read_realtime()
    except TracerError as error:
        print(error)
    else:
        print(f"{url}: {data.battery_voltage:.2f} V, {data.charge_power:.1f} W in, {data.load_power:.1f} W out")


async def main(urls: list[str]) -> None:
    """Read all of *urls* at the same time."""
    async with asyncio.TaskGroup() as group:
        for url in urls:
            group.create_task(read(url))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the program without a traceback
        asyncio.run(main(sys.argv[1:] or [f"sim:?seed={seed}" for seed in range(3)]))
